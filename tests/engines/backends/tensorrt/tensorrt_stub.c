/* Null entry points under the names of TensorRT's libraries: enough to load its real Python bindings without them.
 * Factories return NULL, for which the bindings raise TypeError, as on a machine without a driver. */
#define NULL_FUNCTION(name) void *name(void) { return 0; }
NULL_FUNCTION(createInferBuilder_INTERNAL)
NULL_FUNCTION(createInferRefitter_INTERNAL)
NULL_FUNCTION(createInferRuntime_INTERNAL)
NULL_FUNCTION(createNvOnnxParser_INTERNAL)
NULL_FUNCTION(createNvOnnxParserRefitter_INTERNAL)
NULL_FUNCTION(getBuilderPluginRegistry)
NULL_FUNCTION(getNvOnnxParserVersion)
NULL_FUNCTION(getPluginRegistry)
NULL_FUNCTION(initLibNvInferPlugins)
/* 8.x alone: parsers of other formats, by their C++ names. */
NULL_FUNCTION(_ZN11nvuffparser15createUffParserEv)
NULL_FUNCTION(_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi)
NULL_FUNCTION(_ZN14nvcaffeparser117createCaffeParserEv)
NULL_FUNCTION(_ZN14nvcaffeparser123shutdownProtobufLibraryEv)
