"""python -m rmsnorm_onnx."""

from rmsnorm_onnx.cli import main

if __name__ == "__main__":
    main()
