#include "mentat_fake.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { NOTHING, BUFFER, CAPABILITY, STREAM };

/* HANDLES live at a time, STREAMS in a call; PIECE is the longest piece that the reader of a stream gets. */
enum { FIRST_HANDLE = 7001, HANDLES = 64, STREAMS = 16, PIECE = 128 << 10, NAME = 4096, STREAM_NAME = 256, MEDIA_TYPE = 128, REFERENCE = 71 };

struct mentat_fake mentat_fake;

/* For a stream, `len` counts its pieces. */
static struct { int32_t handle; enum kind kind; size_t len; uint8_t *bytes; } handles[HANDLES];
static struct object { char reference[REFERENCE + 1]; size_t len; uint8_t *bytes; } *objects;
static char names[STREAMS][STREAM_NAME + 1];
static size_t stored, named;
static int32_t given;

static void *keep(void *memory) {
  if (memory == 0) {
    fprintf(stderr, "mentat_fake: out of memory\n");
    abort();
  }
  return memory;
}

void mentat_fake_reset(void) {
  for (size_t at = 0; at < HANDLES; at++) free(handles[at].bytes);
  for (size_t at = 0; at < stored; at++) free(objects[at].bytes);
  free(objects);
  objects = 0;
  memset(handles, 0, sizeof handles);
  memset(names, 0, sizeof names);
  stored = named = 0;
  given = 0;
  mentat_fake.input = mentat_fake.capability = 0;
  mentat_fake.operation = 0;
  mentat_fake.media = mentat_fake.streams = 0;
  /* Of what is large, only what was used. */
  memset(mentat_fake.output, 0, mentat_fake.output_len);
  memset(mentat_fake.log, 0, mentat_fake.log_len * sizeof mentat_fake.log[0]);
  memset(mentat_fake.metrics, 0, mentat_fake.metrics_len * sizeof mentat_fake.metrics[0]);
  memset(mentat_fake.streamed, 0, mentat_fake.streamed_len);
  mentat_fake.input_len = mentat_fake.output_len = mentat_fake.log_len = mentat_fake.metrics_len = 0;
  mentat_fake.streamed_len = mentat_fake.pieces = 0;
}

int mentat_fake_output_is(const char *text) {
  return mentat_fake.output_len == strlen(text) && memcmp(mentat_fake.output, text, strlen(text)) == 0;
}

/* The place of an open handle of a kind, or -1. */
static int place(int32_t handle, enum kind kind) {
  for (int at = 0; at < HANDLES; at++) {
    if (handles[at].kind != NOTHING && handles[at].handle == handle) return handles[at].kind == kind ? at : -1;
  }
  return -1;
}

static void drop(int at) {
  free(handles[at].bytes);
  memset(&handles[at], 0, sizeof handles[at]);
}

static int32_t insert(enum kind kind, const void *bytes, size_t len) {
  size_t held = len;
  int at = -1;
  for (int other = 0; other < HANDLES; other++) {
    if (handles[other].kind == BUFFER) held += handles[other].len;
    if (handles[other].kind == NOTHING && at < 0) at = other;
  }
  if (at < 0 || held > MENTAT_MAX_TRANSFER) return MENTAT_LIMIT;
  handles[at].handle = FIRST_HANDLE + given++;
  handles[at].kind = kind;
  handles[at].len = len;
  if (len > 0) memcpy(handles[at].bytes = keep(malloc(len)), bytes, len);
  return handles[at].handle;
}

static int32_t copy(const uint8_t *from, size_t from_len, void *into, size_t cap, size_t offset) {
  size_t rest = offset < from_len ? from_len - offset : 0;
  size_t len = rest < cap ? rest : cap;
  if (cap > MENTAT_MAX_TRANSFER) return MENTAT_LIMIT;
  if (len > 0) memcpy(into, from + offset, len);
  return (int32_t)len;
}

/* 0 for a text of at most so many bytes, or the error that one that is too long or no UTF-8 is refused with. */
static int32_t text(const char *bytes, size_t len, size_t limit) {
  if (len > limit) return MENTAT_LIMIT;
  const uint8_t *at = (const uint8_t *)bytes, *end = at + len;
  while (at < end) {
    uint8_t first = *at++, low = 0x80, high = 0xbf;
    size_t more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    if (first >= 0x80 && (first < 0xc2 || first > 0xf4)) return MENTAT_INVALID_ARGUMENT;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
    if ((size_t)(end - at) < more || (more > 0 && (*at < low || *at > high))) return MENTAT_INVALID_ARGUMENT;
    for (size_t next = 1; next < more; next++) {
      if ((at[next] & 0xc0) != 0x80) return MENTAT_INVALID_ARGUMENT;
    }
    at += more;
  }
  return 0;
}

static int is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

static int is_digit(char c) { return c >= '0' && c <= '9'; }

/* A text of one of the five kinds. The grammar of what follows is the executor's, but for names of variables. */
static int is_capability(const char *text, size_t len) {
  static const char *const kinds[] = {"compute:", "extension:", "filesystem:", "network:"};
  if (len > 4 && memcmp(text, "env:", 4) == 0) {
    for (size_t at = 4; at < len; at++) {
      if (!is_letter(text[at]) && (at == 4 || !is_digit(text[at]))) return 0;
    }
    return len <= 4 + 128;
  }
  for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
    if (len > strlen(kinds[kind]) && memcmp(text, kinds[kind], strlen(kinds[kind])) == 0) return 1;
  }
  return 0;
}

/* A type and a subtype. */
static int is_media_type(const char *text, size_t len) {
  size_t slashes = 0;
  for (size_t at = 0; at < len; at++) {
    if (text[at] == '/') slashes++;
    else if (!is_letter(text[at]) && !is_digit(text[at]) && memchr("!#$&^.+-", text[at], 8) == 0) return 0;
  }
  return slashes == 1 && text[0] != '/' && text[len - 1] != '/';
}

/* `sha256:` and 64 hexadecimal digits in lower case. */
static int is_reference(const char *text, size_t len) {
  if (len != REFERENCE || memcmp(text, "sha256:", 7) != 0) return 0;
  for (size_t at = 7; at < len; at++) {
    if (!is_digit(text[at]) && !(text[at] >= 'a' && text[at] <= 'f')) return 0;
  }
  return 1;
}

static int is(const char *text, size_t len, const char *other) {
  return strlen(other) == len && memcmp(text, other, len) == 0;
}

int64_t mentat_input_len(void) { return (int64_t)mentat_fake.input_len; }

int32_t mentat_read_input(void *into, size_t cap, size_t offset) {
  return copy(mentat_fake.input, mentat_fake.input_len, into, cap, offset);
}

int32_t mentat_write_output(const void *bytes, size_t len) {
  if (len > MENTAT_MAX_TRANSFER || len > sizeof mentat_fake.output - mentat_fake.output_len) return MENTAT_LIMIT;
  if (len > 0) memcpy(mentat_fake.output + mentat_fake.output_len, bytes, len);
  mentat_fake.output_len += len;
  return (int32_t)len;
}

void mentat_log(int32_t level, const char *line, size_t len) {
  size_t lines = sizeof mentat_fake.log / sizeof mentat_fake.log[0];
  if (level < MENTAT_ERROR || level > MENTAT_TRACE || mentat_fake.log_len == lines) return;
  if (text(line, len, sizeof mentat_fake.log[0].text - 1) != 0) return;
  mentat_fake.log[mentat_fake.log_len].level = level;
  memcpy(mentat_fake.log[mentat_fake.log_len++].text, line, len);
}

int32_t mentat_record_metric(const char *name, size_t len, double value) {
  int32_t wrong = text(name, len, NAME);
  if (wrong != 0) return wrong;
  if (len == 0 || len > 64 || !isfinite(value) || is_digit(name[0])) return MENTAT_INVALID_ARGUMENT;
  for (size_t at = 0; at < len; at++) {
    char c = name[at];
    if (!(c == '_' || (c >= 'a' && c <= 'z') || is_digit(c))) return MENTAT_INVALID_ARGUMENT;
  }
  if (mentat_fake.metrics_len == sizeof mentat_fake.metrics / sizeof mentat_fake.metrics[0]) return MENTAT_LIMIT;
  memcpy(mentat_fake.metrics[mentat_fake.metrics_len].name, name, len);
  mentat_fake.metrics[mentat_fake.metrics_len++].value = value;
  return 0;
}

int64_t mentat_buffer_len(int32_t buffer) {
  int at = place(buffer, BUFFER);
  return at < 0 ? MENTAT_BAD_HANDLE : (int64_t)handles[at].len;
}

int32_t mentat_buffer_read(int32_t buffer, void *into, size_t cap, int64_t offset) {
  if (offset < 0) return MENTAT_INVALID_ARGUMENT;
  int at = place(buffer, BUFFER);
  if (at < 0) return MENTAT_BAD_HANDLE;
  return copy(handles[at].bytes, handles[at].len, into, cap, (size_t)offset);
}

int32_t mentat_close(int32_t handle) {
  for (int at = 0; at < HANDLES; at++) {
    if (handles[at].kind != NOTHING && handles[at].handle == handle) {
      drop(at);
      return 0;
    }
  }
  return MENTAT_BAD_HANDLE;
}

int32_t mentat_request_capability(const char *capability, size_t len) {
  int32_t wrong = text(capability, len, NAME);
  if (wrong != 0) return wrong;
  if (!is_capability(capability, len)) return MENTAT_INVALID_ARGUMENT;
  if (mentat_fake.capability == 0 || !is(capability, len, mentat_fake.capability)) return MENTAT_NOT_IN_MANIFEST;
  return insert(CAPABILITY, 0, 0);
}

int32_t mentat_invoke_capability(int32_t handle, const char *operation, size_t operation_len, const void *arguments, size_t len) {
  static uint8_t result[8 << 20];
  char name[NAME + 1] = {0};
  int32_t wrong = text(operation, operation_len, NAME);
  if (wrong != 0) return wrong;
  if (len > MENTAT_MAX_TRANSFER) return MENTAT_LIMIT;
  if (place(handle, CAPABILITY) < 0) return MENTAT_BAD_HANDLE;
  /* Granted by name, and the test says not what it does. */
  if (mentat_fake.operation == 0) return MENTAT_NOT_SUPPORTED;
  if (operation_len > 0) memcpy(name, operation, operation_len);
  int32_t got = mentat_fake.operation(name, arguments, len, result, sizeof result);
  return got < 0 ? got : insert(BUFFER, result, (size_t)got);
}

int32_t mentat_download_media(const char *reference, size_t len) {
  int32_t wrong = text(reference, len, NAME);
  if (wrong != 0) return wrong;
  if (!mentat_fake.media) return MENTAT_NOT_IN_MANIFEST;
  if (!is_reference(reference, len)) return MENTAT_INVALID_ARGUMENT;
  for (size_t at = 0; at < stored; at++) {
    if (is(reference, len, objects[at].reference)) return insert(BUFFER, objects[at].bytes, objects[at].len);
  }
  return MENTAT_IO;
}

int32_t mentat_upload_media(const char *type, size_t type_len, const void *bytes, size_t len) {
  int32_t wrong = text(type, type_len, MEDIA_TYPE);
  if (wrong != 0) return wrong;
  if (len > MENTAT_MAX_TRANSFER) return MENTAT_LIMIT;
  if (!mentat_fake.media) return MENTAT_NOT_IN_MANIFEST;
  if (!is_media_type(type, type_len)) return MENTAT_INVALID_ARGUMENT;
  objects = keep(realloc(objects, (stored + 1) * sizeof *objects));
  struct object *object = &objects[stored++];
  memset(object, 0, sizeof *object);
  /* Of the right form and of its own for every object; the digest is the executor's work. */
  snprintf(object->reference, sizeof object->reference, "sha256:%064zx", stored);
  object->len = len;
  if (len > 0) memcpy(object->bytes = keep(malloc(len)), bytes, len);
  return insert(BUFFER, object->reference, REFERENCE);
}

int32_t mentat_start_stream(const char *id, size_t len) {
  int32_t wrong = text(id, len, NAME);
  if (wrong != 0) return wrong;
  if (!mentat_fake.streams) return MENTAT_NOT_SUPPORTED;
  if (len == 0 || len > STREAM_NAME) return MENTAT_INVALID_ARGUMENT;
  for (size_t at = 0; at < len; at++) {
    uint8_t c = (uint8_t)id[at];
    int control = c < 0x20 || c == 0x7f || (c == 0xc2 && (uint8_t)id[at + 1] < 0xa0);
    if (control) return MENTAT_INVALID_ARGUMENT;
  }
  for (size_t at = 0; at < named; at++) {
    if (is(id, len, names[at])) return MENTAT_INVALID_ARGUMENT;
  }
  if (named == STREAMS) return MENTAT_LIMIT;
  memcpy(names[named++], id, len);
  return insert(STREAM, 0, 0);
}

int32_t mentat_write_stream(int32_t stream, const void *bytes, size_t len) {
  if (len > MENTAT_MAX_TRANSFER) return MENTAT_LIMIT;
  int at = place(stream, STREAM);
  if (at < 0) return MENTAT_BAD_HANDLE;
  if (len > sizeof mentat_fake.streamed - mentat_fake.streamed_len) return MENTAT_LIMIT;
  if (len > 0) memcpy(mentat_fake.streamed + mentat_fake.streamed_len, bytes, len);
  mentat_fake.streamed_len += len;
  /* A long piece reaches the reader as several, an empty one not at all. */
  size_t pieces = (len + PIECE - 1) / PIECE;
  mentat_fake.pieces += pieces;
  handles[at].len += pieces;
  return (int32_t)len;
}

int32_t mentat_end_stream(int32_t stream) {
  int at = place(stream, STREAM);
  if (at < 0) return MENTAT_BAD_HANDLE;
  int32_t pieces = (int32_t)handles[at].len;
  drop(at);
  return pieces;
}
