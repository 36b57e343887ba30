/*
 * A host that is no executor: link mentat_fake.c and the agent into a native test, say what comes in and what is granted, call
 * process(), and look at what it did. It keeps the rules of the interface that an agent can notice: grammars, lengths, handles,
 * what was not granted. It has no limits of time and memory, and grants what the test says, where an executor asks its policy.
 *
 *   mentat_fake_reset();
 *   mentat_fake.input = "hello";
 *   mentat_fake.input_len = 5;
 *   assert(process() == 0 && mentat_fake_output_is("hello"));
 */
#ifndef MENTAT_FAKE_H
#define MENTAT_FAKE_H

#include "../mentat.h"

/* What a capability does when it is used: writes its result, and returns its length or an error. */
typedef int32_t mentat_fake_operation(const char *operation, const void *arguments, size_t len, void *result, size_t cap);

struct mentat_fake {
  /* What comes in. */
  const void *input;
  size_t input_len;
  /* One granted capability, by its text in the manifest; 0 grants none. */
  const char *capability;
  mentat_fake_operation *operation;
  /* Whether the store of objects is granted, and whether streams are read. */
  int media, streams;

  /* What the agent did. */
  uint8_t output[32 << 20];
  size_t output_len;
  /* A line that is longer is dropped. */
  struct { int32_t level; char text[4096]; } log[256];
  size_t log_len;
  struct { char name[65]; double value; } metrics[64];
  size_t metrics_len;
  /* The pieces of all streams, one after the other, and their number. */
  uint8_t streamed[16 << 20];
  size_t streamed_len, pieces;
};

extern struct mentat_fake mentat_fake;

/* Forgets everything: a fresh instance for the next call. */
void mentat_fake_reset(void);

/* Whether the output is this text. */
int mentat_fake_output_is(const char *text);

#endif
