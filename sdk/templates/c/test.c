/* The agent on a host that is no executor. */
#undef NDEBUG
#include <assert.h>
#include <string.h>

#include "mentat-sdk/fake/mentat_fake.h"

int32_t process(void);

static int32_t greet(const char *name, size_t len) {
  mentat_fake_reset();
  mentat_fake.input = name;
  mentat_fake.input_len = len;
  return process();
}

int main(void) {
  static char longer[257];
  assert(greet("Ada", 3) == 0 && mentat_fake_output_is("hello, Ada"));
  assert(mentat_fake.log_len == 1 && strcmp(mentat_fake.log[0].text, "greeting") == 0);
  assert(mentat_fake.metrics[0].value == 3);
  assert(greet("", 0) == 1 && mentat_fake_output_is(""));
  assert(greet(longer, sizeof longer) == 1);
  return 0;
}
