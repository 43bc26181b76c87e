/*
 * decode.h - bytes to struct insn
 *
 * decode.c is the only caller of the decoder library (Zydis). Its names for
 * mnemonics, registers and operand kinds are used as ours: its headers of enums
 * are plain data, and inventing 1,700 synonyms would help nobody. An instruction has the library's
 * fields under the library's names, those that somebody asks for, in a third of the space: it
 * is copied and kept by the dozen.
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

/* What stands in the bytes; offsets are from the first one. Prefixes come first. */
struct insn_raw {
    uint8_t prefix_count;     /* REX is one */
    uint8_t mandatory_prefix; /* that is a part of the opcode, or 0 */
    union {
        struct {
            uint8_t W, R, X, B;
        } rex;
        struct { /* all bits as they stand */
            uint8_t R, X, B, m_mmmm, W, vvvv, L, pp, offset, size;
        } vex;
        struct {
            uint8_t R, X, B, vvvv, offset;
        } evex;
    };
    struct {
        uint8_t mod, reg, rm, offset;
    } modrm;
    struct {
        uint8_t scale, index, base, offset;
    } sib;
    struct {
        int64_t value;
        uint8_t size, offset; /* size in bits; 0: there is none */
    } disp;
    struct {
        union {
            uint64_t u;
            int64_t s;
        } value;
        bool is_signed, is_relative;
        uint8_t size, offset;
    } imm[2];
};

struct insn_info {
    uint64_t attributes; /* ZYDIS_ATTRIB_ */
    const ZydisAccessedFlags *cpu_flags;
    uint16_t mnemonic;                          /* ZydisMnemonic */
    uint8_t machine_mode, encoding, opcode_map; /* ZydisMachineMode, and so on */
    uint8_t opcode, length;                     /* in bytes */
    uint8_t operand_width, address_width;       /* in bits */
    uint8_t operand_count, operand_count_visible;
    struct {
        uint8_t category, isa_set, isa_ext, branch_type, exception_class;
    } meta;
    struct {
        uint16_t vector_length; /* in bits */
        struct {
            uint16_t reg;
        } mask;
        struct {
            uint8_t mode;
        } broadcast;
    } avx;
    struct insn_raw raw;
};

struct insn_operand {
    uint8_t type, visibility, actions, encoding;
    uint8_t attributes;
    uint16_t size, element_size; /* in bits */
    uint16_t element_count;
    union {
        struct {
            uint16_t value; /* ZydisRegister, like all registers here */
        } reg;
        struct {
            uint8_t type, scale;
            uint16_t segment, base, index;
            struct {
                int64_t value; /* 0 if there is none */
            } disp;
        } mem;
        struct {
            uint16_t segment;
            uint32_t offset;
        } ptr;
        struct {
            bool is_signed, is_relative;
            union {
                uint64_t u;
                int64_t s;
            } value;
        } imm;
    };
};

struct insn {
    struct insn_info info;
    uint8_t bytes[X86_MAX_INSN_BYTES];
    struct insn_operand operands[ZYDIS_MAX_OPERAND_COUNT]; /* visible ones first */
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
 * The same, but faster for what was decoded before, and if X86_DECODE_BYTES are available. A cache
 * belongs to one thread at a time and is 1.3 MiB.
 * decode_cache_new returns NULL if there is no memory; decode_cache_free takes NULL.
 */
#define X86_DECODE_BYTES 24u
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
