# rmsnorm-onnx with the arguments given; its report goes to the job's summary, also when the answer is no.
page="$(mktemp)"
trap 'rm -f "$page"' EXIT
rmsnorm-onnx "$@" --markdown "$page"
status=$?
if [ ! -s "$page" ]; then
  printf '**rmsnorm-onnx %s could not run (exit code %s); the log says why.**\n' "$1" "$status" > "$page"
fi
{ cat "$page"; echo; } >> "$GITHUB_STEP_SUMMARY"
exit "$status"
