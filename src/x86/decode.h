/*
 * decode.h - bytes to struct insn
 *
 * decode.c is the only caller of the decoder library (Zydis). Its names for
 * mnemonics, registers and operand kinds are used as ours: its headers of enums
 * are plain data, and inventing 1,700 synonyms would help nobody.
 */
#ifndef X86_DECODE_H
#define X86_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <Zydis/DecoderTypes.h>

#define X86_MAX_INSN_BYTES 15

/* Code size of the current code segment. */
enum x86_code_size { X86_CODE_16, X86_CODE_32, X86_CODE_64, X86_CODE_SIZE_COUNT };

struct insn {
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT]; /* visible ones first */
    uint8_t bytes[X86_MAX_INSN_BYTES];
};

enum decode_result {
    DECODE_OK,
    DECODE_MORE,     /* the bytes end inside the instruction: more are needed */
    DECODE_INVALID,  /* #UD */
    DECODE_TOO_LONG, /* more than 15 bytes: #GP(0) */
};

/*
 * Decode the instruction at bytes[0]; available is how many bytes there are (1-15; more are
 * not looked at). real_mode: in real or virtual-8086 mode. DECODE_MORE is only
 * returned while fewer than 15 bytes are available. *out is complete after DECODE_OK only
 * and undefined otherwise. A LOCK prefix where it is not allowed is DECODE_INVALID.
 * Any thread.
 */
enum decode_result x86_decode(enum x86_code_size size, bool real_mode, const uint8_t *bytes,
                              size_t available, struct insn *out);

/*
 * The same, but faster for what was decoded before. A cache belongs to one thread at a time and is
 * about 6 MiB. decode_cache_new returns NULL if there is no memory; decode_cache_free takes NULL.
 */
struct decode_cache;
struct decode_cache *decode_cache_new(void);
void decode_cache_free(struct decode_cache *cache);
enum decode_result x86_decode_cached(struct decode_cache *cache, enum x86_code_size size,
                                     bool real_mode, const uint8_t *bytes, size_t available,
                                     struct insn *out);

/*
 * "add rax, rbx" for listings. Returns the instruction's length in bytes; 0, and undefined
 * text, if the bytes are no instruction or text_size is too small (96 always fits). Any thread.
 */
size_t x86_disassemble(enum x86_code_size size, const uint8_t *bytes, size_t available,
                       uint64_t rip, char *text, size_t text_size);

#endif
