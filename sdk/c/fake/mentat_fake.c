#include "mentat_fake.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum kind { NOTHING, BUFFER, CAPABILITY, STREAM };

enum { FIRST_HANDLE = 7001, HANDLES = 64, RESULT = 1 << 16, OBJECTS = 16, NAME = 256 };

struct mentat_fake mentat_fake;

static struct { enum kind kind; size_t len; uint8_t bytes[RESULT]; } handles[HANDLES];
static struct { char reference[72]; size_t len; uint8_t bytes[RESULT]; } objects[OBJECTS];
static char names[HANDLES][NAME + 1];
static size_t given, stored, named;

void mentat_fake_reset(void) {
  memset(&mentat_fake, 0, sizeof mentat_fake);
  memset(handles, 0, sizeof handles);
  given = stored = named = 0;
}

int mentat_fake_output_is(const char *text) {
  return mentat_fake.output_len == strlen(text) && memcmp(mentat_fake.output, text, strlen(text)) == 0;
}

/* The place of an open handle of a kind, or -1. */
static int place(int32_t handle, enum kind kind) {
  int at = handle - FIRST_HANDLE;
  return at >= 0 && at < (int)given && handles[at].kind == kind ? at : -1;
}

static int32_t insert(enum kind kind, const void *bytes, size_t len) {
  if (given == HANDLES || len > RESULT) return MENTAT_LIMIT;
  handles[given].kind = kind;
  handles[given].len = len;
  if (len > 0) memcpy(handles[given].bytes, bytes, len);
  return FIRST_HANDLE + (int32_t)given++;
}

static int32_t copy(const uint8_t *from, size_t from_len, void *into, size_t cap, size_t offset) {
  size_t rest = offset < from_len ? from_len - offset : 0;
  size_t len = rest < cap ? rest : cap;
  if (len > MENTAT_MAX_TRANSFER) return MENTAT_INVALID_ARGUMENT;
  if (len > 0) memcpy(into, from + offset, len);
  return (int32_t)len;
}

static int is(const char *text, size_t len, const char *other) {
  return strlen(other) == len && memcmp(text, other, len) == 0;
}

int64_t mentat_input_len(void) { return (int64_t)mentat_fake.input_len; }

int32_t mentat_read_input(void *into, size_t cap, size_t offset) {
  return copy(mentat_fake.input, mentat_fake.input_len, into, cap, offset);
}

int32_t mentat_write_output(const void *bytes, size_t len) {
  if (len > sizeof mentat_fake.output - mentat_fake.output_len) return MENTAT_LIMIT;
  memcpy(mentat_fake.output + mentat_fake.output_len, bytes, len);
  mentat_fake.output_len += len;
  return (int32_t)len;
}

void mentat_log(int32_t level, const char *text, size_t len) {
  if (level < MENTAT_ERROR || level > MENTAT_TRACE || mentat_fake.log_len == 64 || len > 255) return;
  mentat_fake.log[mentat_fake.log_len].level = level;
  memcpy(mentat_fake.log[mentat_fake.log_len++].text, text, len);
}

int32_t mentat_record_metric(const char *name, size_t len, double value) {
  if (len == 0 || len > 64 || !isfinite(value) || (name[0] >= '0' && name[0] <= '9')) return MENTAT_INVALID_ARGUMENT;
  for (size_t at = 0; at < len; at++) {
    char c = name[at];
    if (!(c == '_' || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))) return MENTAT_INVALID_ARGUMENT;
  }
  if (mentat_fake.metrics_len == 64) return MENTAT_LIMIT;
  memcpy(mentat_fake.metrics[mentat_fake.metrics_len].name, name, len);
  mentat_fake.metrics[mentat_fake.metrics_len++].value = value;
  return 0;
}

int64_t mentat_buffer_len(int32_t buffer) {
  int at = place(buffer, BUFFER);
  return at < 0 ? MENTAT_BAD_HANDLE : (int64_t)handles[at].len;
}

int32_t mentat_buffer_read(int32_t buffer, void *into, size_t cap, int64_t offset) {
  int at = place(buffer, BUFFER);
  if (at < 0) return MENTAT_BAD_HANDLE;
  if (offset < 0) return MENTAT_INVALID_ARGUMENT;
  return copy(handles[at].bytes, handles[at].len, into, cap, (size_t)offset);
}

int32_t mentat_close(int32_t handle) {
  int at = handle - FIRST_HANDLE;
  if (at < 0 || at >= (int)given || handles[at].kind == NOTHING) return MENTAT_BAD_HANDLE;
  handles[at].kind = NOTHING;
  return 0;
}

int32_t mentat_request_capability(const char *text, size_t len) {
  if (len > NAME || memchr(text, ':', len) == 0) return MENTAT_INVALID_ARGUMENT;
  if (mentat_fake.capability == 0 || !is(text, len, mentat_fake.capability)) return MENTAT_NOT_IN_MANIFEST;
  return insert(CAPABILITY, 0, 0);
}

int32_t mentat_invoke_capability(int32_t handle, const char *operation, size_t operation_len, const void *arguments, size_t len) {
  static uint8_t result[RESULT];
  char name[NAME + 1] = {0};
  if (place(handle, CAPABILITY) < 0) return MENTAT_BAD_HANDLE;
  if (operation_len > NAME) return MENTAT_INVALID_ARGUMENT;
  memcpy(name, operation, operation_len);
  int32_t got = mentat_fake.operation(name, arguments, len, result, sizeof result);
  return got < 0 ? got : insert(BUFFER, result, (size_t)got);
}

int32_t mentat_download_media(const char *reference, size_t len) {
  if (!mentat_fake.media) return MENTAT_NOT_IN_MANIFEST;
  if (len != 71 || memcmp(reference, "sha256:", 7) != 0) return MENTAT_INVALID_ARGUMENT;
  for (size_t at = 0; at < stored; at++) {
    if (is(reference, len, objects[at].reference)) return insert(BUFFER, objects[at].bytes, objects[at].len);
  }
  return MENTAT_IO;
}

int32_t mentat_upload_media(const char *type, size_t type_len, const void *bytes, size_t len) {
  if (!mentat_fake.media) return MENTAT_NOT_IN_MANIFEST;
  if (type_len > 128 || memchr(type, '/', type_len) == 0) return MENTAT_INVALID_ARGUMENT;
  if (stored == OBJECTS || len > RESULT) return MENTAT_LIMIT;
  /* Of the right form and of its own for every object; the digest is the executor's work. */
  snprintf(objects[stored].reference, sizeof objects[stored].reference, "sha256:%064zx", stored + 1);
  if (len > 0) memcpy(objects[stored].bytes, bytes, len);
  objects[stored].len = len;
  return insert(BUFFER, objects[stored++].reference, 71);
}

int32_t mentat_start_stream(const char *id, size_t len) {
  if (!mentat_fake.streams) return MENTAT_NOT_SUPPORTED;
  if (len == 0 || len > NAME) return MENTAT_INVALID_ARGUMENT;
  for (size_t at = 0; at < len; at++) {
    if ((unsigned char)id[at] < 0x20 || id[at] == 0x7f) return MENTAT_INVALID_ARGUMENT;
  }
  for (size_t at = 0; at < named; at++) {
    if (is(id, len, names[at])) return MENTAT_INVALID_ARGUMENT;
  }
  if (named == HANDLES) return MENTAT_LIMIT;
  memset(names[named], 0, sizeof names[named]);
  memcpy(names[named++], id, len);
  /* The length of a stream's handle counts its pieces. */
  return insert(STREAM, 0, 0);
}

int32_t mentat_write_stream(int32_t stream, const void *bytes, size_t len) {
  int at = place(stream, STREAM);
  if (at < 0) return MENTAT_BAD_HANDLE;
  if (len > sizeof mentat_fake.streamed - mentat_fake.streamed_len) return MENTAT_LIMIT;
  memcpy(mentat_fake.streamed + mentat_fake.streamed_len, bytes, len);
  mentat_fake.streamed_len += len;
  mentat_fake.pieces++;
  handles[at].len++;
  return (int32_t)len;
}

int32_t mentat_end_stream(int32_t stream) {
  int at = place(stream, STREAM);
  if (at < 0) return MENTAT_BAD_HANDLE;
  handles[at].kind = NOTHING;
  return (int32_t)handles[at].len;
}
