/* An agent that greets: a name comes in, "hello, NAME" goes out. */
#include "mentat-sdk/mentat.h"

/* Exit codes: 1 there is no name, or one that is too long; 3 the host refused. */
MENTAT_AGENT int32_t process(void) {
  static char name[256];
  int64_t len = mentat_read(name, sizeof name);
  if (len == 0 || len == MENTAT_LIMIT) {
    mentat_say(MENTAT_ERROR, "a name has 1 to 256 bytes");
    return 1;
  }
  if (len < 0) return 3;
  mentat_say(MENTAT_INFO, "greeting");
  if (mentat_metric("name_bytes", (double)len) < 0) return 3;
  return mentat_write("hello, ", 7) < 0 || mentat_write(name, (size_t)len) < 0 ? 3 : 0;
}
