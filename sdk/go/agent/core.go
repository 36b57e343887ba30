//go:build wasm_unknown

package agent

import "unsafe"

// A core module: the imports of the module `mentat`, version 1 (docs/formats/agent-abi.md), and its export. Each function passes
// the range of a slice or text that lives until the call returns.

//go:wasmimport mentat input_len
func hostInputLen() int64

//go:wasmimport mentat read_input
func abiReadInput(ptr unsafe.Pointer, size, offset uint32) int32

//go:wasmimport mentat write_output
func abiWriteOutput(ptr unsafe.Pointer, size uint32) int32

//go:wasmimport mentat log
func abiLog(level int32, ptr unsafe.Pointer, size uint32)

//go:wasmimport mentat record_metric
func abiRecordMetric(name unsafe.Pointer, size uint32, value float64) int32

//go:wasmimport mentat buffer_len
func hostBufferLen(buffer int32) int64

//go:wasmimport mentat buffer_read
func abiBufferRead(buffer int32, ptr unsafe.Pointer, size uint32, offset int64) int32

//go:wasmimport mentat close
func hostClose(handle int32) int32

//go:wasmimport mentat request_capability
func abiRequestCapability(ptr unsafe.Pointer, size uint32) int32

//go:wasmimport mentat invoke_capability
func abiInvokeCapability(handle int32, name unsafe.Pointer, nameSize uint32, arguments unsafe.Pointer, size uint32) int32

//go:wasmimport mentat download_media
func abiDownloadMedia(ptr unsafe.Pointer, size uint32) int32

//go:wasmimport mentat upload_media
func abiUploadMedia(kind unsafe.Pointer, kindSize uint32, ptr unsafe.Pointer, size uint32) int32

//go:wasmimport mentat start_stream
func abiStartStream(ptr unsafe.Pointer, size uint32) int32

//go:wasmimport mentat write_stream
func abiWriteStream(handle int32, ptr unsafe.Pointer, size uint32) int32

//go:wasmimport mentat end_stream
func hostEndStream(handle int32) int32

//go:wasmexport process
func exportedProcess() int32 { return answer(registered) }

// Run does nothing in a core module, whose export the host calls: it is there for the other forms of the same source.
func Run() {}

func slice(bytes []byte) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.SliceData(bytes)), uint32(len(bytes))
}

func text(text string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(text)), uint32(len(text))
}

func hostReadInput(into []byte, offset int) int32 {
	ptr, size := slice(into)
	return abiReadInput(ptr, size, uint32(offset))
}

func hostWriteOutput(bytes []byte) int32 { return abiWriteOutput(slice(bytes)) }

func hostLog(level int32, line string) {
	ptr, size := text(line)
	abiLog(level, ptr, size)
}

func hostRecordMetric(name string, value float64) int32 {
	ptr, size := text(name)
	return abiRecordMetric(ptr, size, value)
}

func hostBufferRead(buffer int32, into []byte, offset int64) int32 {
	ptr, size := slice(into)
	return abiBufferRead(buffer, ptr, size, offset)
}

func hostRequestCapability(capability string) int32 { return abiRequestCapability(text(capability)) }

func hostInvokeCapability(handle int32, operation string, arguments []byte) int32 {
	name, nameSize := text(operation)
	ptr, size := slice(arguments)
	return abiInvokeCapability(handle, name, nameSize, ptr, size)
}

func hostDownloadMedia(reference string) int32 { return abiDownloadMedia(text(reference)) }

func hostUploadMedia(mediaType string, bytes []byte) int32 {
	kind, kindSize := text(mediaType)
	ptr, size := slice(bytes)
	return abiUploadMedia(kind, kindSize, ptr, size)
}

func hostStartStream(id string) int32 { return abiStartStream(text(id)) }

func hostWriteStream(handle int32, bytes []byte) int32 {
	ptr, size := slice(bytes)
	return abiWriteStream(handle, ptr, size)
}
