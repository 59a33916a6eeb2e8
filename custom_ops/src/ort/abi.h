// The part of onnxruntime's C interface that this library uses, declared without its headers (its
// wheels carry none). OrtApi is a table of function pointers that only ever grows, so a slot number
// is a stable name; OrtCustomOp is the 26-field struct of version 18. tests/test_library.py
// compares both with the official header where one is present.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rmsnorm::ort {

struct Status;
struct Value;
struct TensorInfo;  // OrtTensorTypeAndShapeInfo
struct KernelInfo;
struct KernelContext;
struct ShapeInferContext;
struct SessionOptions;
struct CustomOpDomain;
struct ApiTable;  // OrtApi

struct ApiBase {
  const ApiTable* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
enum ElementType : int { kUint8 = 2 };  // otherwise numbered like rmsnorm::Element
enum Characteristic : int { kRequired = 0, kOptional = 1 };
enum MemoryType : int { kDefaultMemory = 0 };

struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const ApiTable*, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  int (*GetInputType)(const CustomOp*, size_t);
  size_t (*GetInputTypeCount)(const CustomOp*);
  int (*GetOutputType)(const CustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void*, KernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const CustomOp*, size_t);
  int (*GetOutputCharacteristic)(const CustomOp*, size_t);
  int (*GetInputMemoryType)(const CustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, const ApiTable*, const KernelInfo*, void**);
  Status* (*KernelComputeV2)(void*, KernelContext*);
  Status* (*InferOutputShapeFn)(const CustomOp*, ShapeInferContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
  size_t (*GetMayInplace)(int**, int**);
  void (*ReleaseMayInplace)(int*, int*);
  size_t (*GetAliasMap)(int**, int**);
  void (*ReleaseAliasMap)(int*, int*);
};
static_assert(sizeof(CustomOp) == 26 * sizeof(void*), "OrtCustomOp of API version 18");

enum class Slot : int {
  CreateStatus = 0,
  GetErrorMessage = 2,
  CreateCustomOpDomain = 26,
  CustomOpDomain_Add = 27,
  AddCustomOpDomain = 28,
  GetTensorMutableData = 51,
  SetTensorElementType = 58,
  GetTensorElementType = 60,
  GetDimensionsCount = 61,
  GetDimensions = 62,
  GetSymbolicDimensions = 63,
  GetTensorTypeAndShape = 65,
  KernelInfoGetAttribute_float = 85,
  KernelInfoGetAttribute_int64 = 86,
  KernelInfoGetAttribute_string = 87,
  KernelContext_GetOutputCount = 89,
  KernelContext_GetInput = 90,
  KernelContext_GetOutput = 91,
  ReleaseStatus = 93,
  ReleaseTensorTypeAndShapeInfo = 99,
  KernelInfoGetAttributeArray_int64 = 163,
  KernelContext_GetGPUComputeStream = 193,
  KernelInfo_GetOutputCount = 231,
  KernelInfo_GetOutputName = 233,
  HasSessionConfigEntry = 237,
  KernelInfo_GetNodeName = 244,
  KernelInfoGetConstantInput_tensor = 249,
  ShapeInferContext_GetInputTypeShape = 268,
  ShapeInferContext_SetOutputTypeShape = 270,
  KernelContext_ParallelFor = 274,
  GetTensorElementTypeAndShapeDataReference = 414,
};

// Version of the interface with which the last slot came.
constexpr int kLendsShapes = 24;

template <Slot>
struct Signature;

#define RMSNORM_SLOT(slot, result, ...) \
  template <>                           \
  struct Signature<Slot::slot> {        \
    using Type = result(__VA_ARGS__);   \
  };

RMSNORM_SLOT(CreateStatus, Status*, int, const char*)
RMSNORM_SLOT(GetErrorMessage, const char*, const Status*)
RMSNORM_SLOT(CreateCustomOpDomain, Status*, const char*, CustomOpDomain**)
RMSNORM_SLOT(CustomOpDomain_Add, Status*, CustomOpDomain*, const CustomOp*)
RMSNORM_SLOT(AddCustomOpDomain, Status*, SessionOptions*, CustomOpDomain*)
RMSNORM_SLOT(GetTensorMutableData, Status*, Value*, void**)
RMSNORM_SLOT(SetTensorElementType, Status*, TensorInfo*, int)
RMSNORM_SLOT(GetTensorElementType, Status*, const TensorInfo*, int*)
RMSNORM_SLOT(GetDimensionsCount, Status*, const TensorInfo*, size_t*)
RMSNORM_SLOT(GetDimensions, Status*, const TensorInfo*, int64_t*, size_t)
RMSNORM_SLOT(GetSymbolicDimensions, Status*, const TensorInfo*, const char**, size_t)
RMSNORM_SLOT(GetTensorTypeAndShape, Status*, const Value*, TensorInfo**)
RMSNORM_SLOT(KernelInfoGetAttribute_float, Status*, const KernelInfo*, const char*, float*)
RMSNORM_SLOT(KernelInfoGetAttribute_int64, Status*, const KernelInfo*, const char*, int64_t*)
RMSNORM_SLOT(KernelInfoGetAttribute_string, Status*, const KernelInfo*, const char*, char*, size_t*)
RMSNORM_SLOT(KernelContext_GetOutputCount, Status*, const KernelContext*, size_t*)
RMSNORM_SLOT(KernelContext_GetInput, Status*, const KernelContext*, size_t, const Value**)
RMSNORM_SLOT(KernelContext_GetOutput, Status*, KernelContext*, size_t, const int64_t*, size_t,
             Value**)
RMSNORM_SLOT(ReleaseStatus, void, Status*)
RMSNORM_SLOT(ReleaseTensorTypeAndShapeInfo, void, TensorInfo*)
RMSNORM_SLOT(KernelInfoGetAttributeArray_int64, Status*, const KernelInfo*, const char*, int64_t*,
             size_t*)
RMSNORM_SLOT(KernelContext_GetGPUComputeStream, Status*, const KernelContext*, void**)
RMSNORM_SLOT(KernelInfo_GetOutputCount, Status*, const KernelInfo*, size_t*)
RMSNORM_SLOT(KernelInfo_GetOutputName, Status*, const KernelInfo*, size_t, char*, size_t*)
RMSNORM_SLOT(HasSessionConfigEntry, Status*, const SessionOptions*, const char*, int*)
RMSNORM_SLOT(KernelInfo_GetNodeName, Status*, const KernelInfo*, char*, size_t*)
RMSNORM_SLOT(KernelInfoGetConstantInput_tensor, Status*, const KernelInfo*, size_t, int*,
             const Value**)
RMSNORM_SLOT(ShapeInferContext_GetInputTypeShape, Status*, const ShapeInferContext*, size_t,
             TensorInfo**)
RMSNORM_SLOT(ShapeInferContext_SetOutputTypeShape, Status*, const ShapeInferContext*, size_t,
             const TensorInfo*)
RMSNORM_SLOT(KernelContext_ParallelFor, Status*, const KernelContext*, void (*)(void*, size_t),
             size_t, size_t, void*)
RMSNORM_SLOT(GetTensorElementTypeAndShapeDataReference, Status*, const Value*, int*,
             const int64_t**, size_t*)

#undef RMSNORM_SLOT

}  // namespace rmsnorm::ort
