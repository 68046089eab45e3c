/* model/nfc.h - canonical composition (NFC) as the reference tokenizer does it. */
#ifndef PARLEY_MODEL_NFC_H
#define PARLEY_MODEL_NFC_H

#include <stdbool.h>
#include <stddef.h>

/* True when valid UTF-8 is surely its own NFC; false says nothing. */
bool nfc_already(const char *text, size_t len);

/* The NFC of valid UTF-8 in new memory that the caller frees. 0 or -ENOMEM. Linear in `len`. */
int nfc(char **ret, size_t *ret_len, const char *text, size_t len);

#endif
