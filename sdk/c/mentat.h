/*
 * Agents for the Mentat executor in C: a core module over the interface `mentat`, version 1 (docs/formats/agent-abi.md).
 *
 *   #include "mentat.h"
 *   MENTAT_AGENT int32_t process(void) { return mentat_write("hello", 5); }
 *
 * An agent exports `process`: 0 is success, any other number its own error. It owns every buffer. Results from 0 up are counts
 * or handles, negative ones errors. A function that is not called is not imported, and one that the manifest was not granted
 * makes the executor refuse the module at load. No C library is needed. Natively the functions are those of fake/mentat_fake.c.
 */
#ifndef MENTAT_H
#define MENTAT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__wasm__)
#define MENTAT_IMPORT(name) __attribute__((import_module("mentat"), import_name(#name)))
/* Stands before the definition of `process`. */
#define MENTAT_AGENT __attribute__((export_name("process")))
#else
#define MENTAT_IMPORT(name)
#define MENTAT_AGENT
#endif

enum mentat_error {
  MENTAT_INVALID_ARGUMENT = -1, /* outside its grammar or range */
  MENTAT_OUT_OF_RANGE = -2,     /* a range outside the memory */
  MENTAT_NOT_IN_MANIFEST = -3,  /* the manifest does not ask for it */
  MENTAT_POLICY_DENIED = -4,    /* policy does not grant it */
  MENTAT_BAD_HANDLE = -5,       /* closed, foreign or made up */
  MENTAT_LIMIT = -6,            /* a limit is reached */
  MENTAT_IO = -7,               /* input or output failed */
  MENTAT_NOT_SUPPORTED = -8,    /* not offered by this executor or call */
  MENTAT_TIMED_OUT = -9,
  MENTAT_REVOKED = -10 /* something that vouched for this agent */
};

enum mentat_level { MENTAT_ERROR, MENTAT_WARN, MENTAT_INFO, MENTAT_DEBUG, MENTAT_TRACE };

/* The largest transfer in one call, bytes. */
#define MENTAT_MAX_TRANSFER ((size_t)8 << 20)

/* Every agent has these. */
MENTAT_IMPORT(input_len) int64_t mentat_input_len(void);
MENTAT_IMPORT(read_input) int32_t mentat_read_input(void *into, size_t cap, size_t offset);
MENTAT_IMPORT(write_output) int32_t mentat_write_output(const void *bytes, size_t len);
MENTAT_IMPORT(log) void mentat_log(int32_t level, const char *text, size_t len);
MENTAT_IMPORT(record_metric) int32_t mentat_record_metric(const char *name, size_t name_len, double value);
MENTAT_IMPORT(buffer_len) int64_t mentat_buffer_len(int32_t buffer);
MENTAT_IMPORT(buffer_read) int32_t mentat_buffer_read(int32_t buffer, void *into, size_t cap, int64_t offset);
MENTAT_IMPORT(close) int32_t mentat_close(int32_t handle);

/* Granted by any capability that is used by handle. */
MENTAT_IMPORT(request_capability) int32_t mentat_request_capability(const char *text, size_t len);
MENTAT_IMPORT(invoke_capability)
int32_t mentat_invoke_capability(int32_t handle, const char *operation, size_t operation_len, const void *arguments, size_t len);

/* Granted by extension:media. Both results are buffers. */
MENTAT_IMPORT(download_media) int32_t mentat_download_media(const char *reference, size_t len);
MENTAT_IMPORT(upload_media) int32_t mentat_upload_media(const char *type, size_t type_len, const void *bytes, size_t len);

/* Granted by extension:stream. */
MENTAT_IMPORT(start_stream) int32_t mentat_start_stream(const char *id, size_t len);
MENTAT_IMPORT(write_stream) int32_t mentat_write_stream(int32_t stream, const void *bytes, size_t len);
MENTAT_IMPORT(end_stream) int32_t mentat_end_stream(int32_t stream);

/* Length of a text that ends with 0. */
static inline size_t mentat_length(const char *text) {
  size_t len = 0;
  while (text[len] != 0) len++;
  return len;
}

/* Log lines never fail: over the executor's limits a line is dropped and counted. */
static inline void mentat_say(enum mentat_level level, const char *text) {
  mentat_log((int32_t)level, text, mentat_length(text));
}

/* Records a finite value under a name of the form [a-z_][a-z0-9_]*, at most 64 bytes. */
static inline int32_t mentat_metric(const char *name, double value) {
  return mentat_record_metric(name, mentat_length(name), value);
}

/* Reads the whole input: its length, MENTAT_LIMIT when it is longer than `cap`, or another error. */
static inline int64_t mentat_read(void *into, size_t cap) {
  int64_t len = mentat_input_len();
  if (len < 0) return len;
  if ((uint64_t)len > cap) return MENTAT_LIMIT;
  size_t done = 0;
  while (done < (size_t)len) {
    size_t rest = (size_t)len - done;
    size_t piece = rest < MENTAT_MAX_TRANSFER ? rest : MENTAT_MAX_TRANSFER;
    int32_t got = mentat_read_input((uint8_t *)into + done, piece, done);
    if (got <= 0) return got < 0 ? got : MENTAT_IO;
    done += (size_t)got;
  }
  return len;
}

/* Appends to the output, in as many pieces as it takes: 0, or an error. */
static inline int32_t mentat_write(const void *bytes, size_t len) {
  size_t done = 0;
  while (done < len) {
    size_t piece = len - done < MENTAT_MAX_TRANSFER ? len - done : MENTAT_MAX_TRANSFER;
    int32_t taken = mentat_write_output((const uint8_t *)bytes + done, piece);
    if (taken < 0) return taken;
    done += piece;
  }
  return 0;
}

/* The bytes of a result, whose buffer is closed: their number, MENTAT_LIMIT when there are more than `cap`, or another error. */
static inline int64_t mentat_take(int32_t buffer, void *into, size_t cap) {
  if (buffer < 0) return buffer;
  int64_t len = mentat_buffer_len(buffer);
  if (len > 0 && (uint64_t)len > cap) len = MENTAT_LIMIT;
  int64_t done = 0;
  while (len > 0 && done < len) {
    size_t rest = (size_t)(len - done);
    size_t piece = rest < MENTAT_MAX_TRANSFER ? rest : MENTAT_MAX_TRANSFER;
    int32_t got = mentat_buffer_read(buffer, (uint8_t *)into + done, piece, done);
    if (got <= 0) {
      len = got < 0 ? got : MENTAT_IO;
      break;
    }
    done += got;
  }
  mentat_close(buffer);
  return len;
}

/* The value of a variable that env:NAME grants; `capability` is that text. As mentat_take. */
static inline int64_t mentat_environment(const char *capability, void *into, size_t cap) {
  int32_t handle = mentat_request_capability(capability, mentat_length(capability));
  if (handle < 0) return handle;
  int64_t len = mentat_take(mentat_invoke_capability(handle, "get", 3, 0, 0), into, cap);
  mentat_close(handle);
  return len;
}

#endif
