/* The word count on the fake host. */
#undef NDEBUG
#include <assert.h>
#include <string.h>

#include "../../c/fake/mentat_fake.h"

int32_t process(void);

static void gives(const void *input, size_t len, const char *answer) {
  mentat_fake_reset();
  mentat_fake.input = input;
  mentat_fake.input_len = len;
  assert(process() == 0);
  assert(mentat_fake_output_is(answer));
  assert(mentat_fake.metrics_len == 1 && strcmp(mentat_fake.metrics[0].name, "words") == 0);
}

int main(void) {
  static char longer[200000];
  gives("", 0, "{\"lines\":0,\"words\":0,\"bytes\":0,\"longest_line\":0}");
  gives("one two\n  three\n", 16, "{\"lines\":2,\"words\":3,\"bytes\":16,\"longest_line\":7}");
  gives("no end", 6, "{\"lines\":0,\"words\":2,\"bytes\":6,\"longest_line\":6}");
  memset(longer, 'x', sizeof longer);
  gives(longer, sizeof longer, "{\"lines\":0,\"words\":1,\"bytes\":200000,\"longest_line\":200000}");
  return 0;
}
