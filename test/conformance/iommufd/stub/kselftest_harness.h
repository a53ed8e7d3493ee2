/*
 * Linux's own harness, found behind this one, gives every test 30 seconds of wall time. On a busy machine that is an ordinary amount for
 * the tests that map gigabytes; a test that hangs is found later all the same.
 */
#include_next <kselftest_harness.h>
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 3600
