/* The helpers of mentat.h on the fake host, and the fake host's own rules. */
#undef NDEBUG
#include <assert.h>
#include <string.h>

#include "../fake/mentat_fake.h"

static int32_t greeting(const char *operation, const void *arguments, size_t len, void *result, size_t cap) {
  (void)arguments;
  if (strcmp(operation, "get") != 0 || len != 0 || cap < 2) return MENTAT_INVALID_ARGUMENT;
  memcpy(result, "hi", 2);
  return 2;
}

static void input_and_output(void) {
  char bytes[8];
  mentat_fake_reset();
  assert(mentat_read(bytes, sizeof bytes) == 0);
  mentat_fake.input = "longer than it may be";
  mentat_fake.input_len = 21;
  assert(mentat_read(bytes, sizeof bytes) == MENTAT_LIMIT);
  mentat_fake.input_len = 6;
  assert(mentat_read(bytes, sizeof bytes) == 6 && memcmp(bytes, "longer", 6) == 0);
  assert(mentat_write(bytes, 4) == 0 && mentat_write("!", 1) == 0 && mentat_fake_output_is("long!"));
}

static void log_and_metrics(void) {
  mentat_fake_reset();
  mentat_say(MENTAT_WARN, "careful");
  mentat_log(9, "no level", 8);
  assert(mentat_fake.log_len == 1 && strcmp(mentat_fake.log[0].text, "careful") == 0);
  assert(mentat_metric("a_1", 0.5) == 0 && mentat_fake.metrics[0].value == 0.5);
  assert(mentat_metric("1a", 0.5) == MENTAT_INVALID_ARGUMENT && mentat_metric("A", 0.5) == MENTAT_INVALID_ARGUMENT);
  assert(mentat_metric("a", 1e308 * 10) == MENTAT_INVALID_ARGUMENT && mentat_fake.metrics_len == 1);
}

static void capabilities(void) {
  char value[4];
  mentat_fake_reset();
  assert(mentat_environment("env:GREETING", value, sizeof value) == MENTAT_NOT_IN_MANIFEST);
  mentat_fake.capability = "env:GREETING";
  mentat_fake.operation = greeting;
  assert(mentat_environment("env:GREETING", value, sizeof value) == 2 && memcmp(value, "hi", 2) == 0);
  assert(mentat_environment("env:GREETING", value, 1) == MENTAT_LIMIT);
  assert(mentat_environment("env:OTHER", value, sizeof value) == MENTAT_NOT_IN_MANIFEST);
  assert(mentat_request_capability("nonsense", 8) == MENTAT_INVALID_ARGUMENT);
  int32_t handle = mentat_request_capability("env:GREETING", 12);
  assert(handle > 0 && mentat_invoke_capability(handle, "put", 3, 0, 0) == MENTAT_INVALID_ARGUMENT);
  assert(mentat_close(handle) == 0 && mentat_close(handle) == MENTAT_BAD_HANDLE);
  assert(mentat_invoke_capability(handle, "get", 3, 0, 0) == MENTAT_BAD_HANDLE);
  mentat_fake.operation = 0;
  handle = mentat_request_capability("env:GREETING", 12);
  assert(handle > 0 && mentat_invoke_capability(handle, "get", 3, 0, 0) == MENTAT_NOT_SUPPORTED);
  mentat_fake.operation = greeting;
  for (int turn = 0; turn < 1000; turn++) assert(mentat_environment("env:GREETING", value, sizeof value) == 2);
}

static void media(void) {
  char reference[71], object[8];
  mentat_fake_reset();
  assert(mentat_upload_media("text/plain", 10, "kept", 4) == MENTAT_NOT_IN_MANIFEST);
  mentat_fake.media = 1;
  assert(mentat_upload_media("text", 4, "kept", 4) == MENTAT_INVALID_ARGUMENT);
  assert(mentat_take(mentat_upload_media("text/plain", 10, "kept", 4), reference, 71) == 71);
  assert(mentat_take(mentat_download_media(reference, 71), object, sizeof object) == 4 && memcmp(object, "kept", 4) == 0);
  assert(mentat_take(mentat_download_media(reference, 70), object, sizeof object) == MENTAT_INVALID_ARGUMENT);
  reference[70] = 'f';
  assert(mentat_download_media(reference, 71) == MENTAT_IO);
  static char large[1 << 20], back[1 << 20];
  memset(large, 'x', sizeof large);
  assert(mentat_take(mentat_upload_media("a/b", 3, large, sizeof large), reference, 71) == 71);
  assert(mentat_take(mentat_download_media(reference, 71), back, sizeof back) == sizeof back && memcmp(large, back, sizeof large) == 0);
}

static void streams(void) {
  mentat_fake_reset();
  assert(mentat_start_stream("a", 1) == MENTAT_NOT_SUPPORTED);
  mentat_fake.streams = 1;
  int32_t stream = mentat_start_stream("a", 1);
  assert(stream > 0 && mentat_start_stream("a", 1) == MENTAT_INVALID_ARGUMENT && mentat_start_stream("", 0) == MENTAT_INVALID_ARGUMENT);
  assert(mentat_write_stream(stream, "one", 3) == 3 && mentat_write_stream(stream, "two", 3) == 3);
  assert(mentat_end_stream(stream) == 2 && mentat_end_stream(stream) == MENTAT_BAD_HANDLE);
  assert(mentat_fake.pieces == 2 && memcmp(mentat_fake.streamed, "onetwo", 6) == 0);
}

int main(void) {
  input_and_output();
  log_and_metrics();
  capabilities();
  media();
  streams();
  return 0;
}
