/* The word count: lines, words and bytes of a text, and the length of its longest line, as one JSON object. */
#include "../../c/mentat.h"

/* Read piece by piece: the size of the input does not matter. */
static uint8_t piece[1 << 16];
static char answer[128];
static size_t answer_len;

static void put(const char *text) {
  for (size_t at = 0; text[at] != 0 && answer_len < sizeof answer; at++) answer[answer_len++] = text[at];
}

static void put_number(uint32_t number) {
  char digits[11] = {0};
  size_t at = sizeof digits - 1;
  do digits[--at] = (char)('0' + number % 10);
  while ((number /= 10) > 0);
  put(digits + at);
}

static void put_member(const char *name, uint32_t number) {
  put(answer_len == 0 ? "{\"" : ",\"");
  put(name);
  put("\":");
  put_number(number);
}

static int is_blank(uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

/* 0 done; 3 the host refused. */
MENTAT_AGENT int32_t process(void) {
  uint32_t lines = 0, words = 0, bytes = 0, line = 0, longest = 0;
  int in_word = 0;
  int32_t got;
  answer_len = 0;
  while ((got = mentat_read_input(piece, sizeof piece, bytes)) > 0) {
    for (int32_t at = 0; at < got; at++) {
      int blank = is_blank(piece[at]);
      words += !blank && !in_word;
      in_word = !blank;
      if (piece[at] == '\n') {
        lines++;
        line = 0;
      } else if (++line > longest) {
        longest = line;
      }
    }
    bytes += (uint32_t)got;
  }
  if (got < 0 || mentat_metric("words", words) < 0) {
    mentat_say(MENTAT_ERROR, "the host refused the input or the metric");
    return 3;
  }
  put_member("lines", lines);
  put_member("words", words);
  put_member("bytes", bytes);
  put_member("longest_line", longest);
  put("}");
  return mentat_write(answer, answer_len) < 0 ? 3 : 0;
}
