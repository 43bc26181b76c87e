/*
 * descriptor.h - descriptors and stacks, shared by segments.c, far_transfer.c, exceptions.c, task.c
 *
 * Private to src/x86. Faults do not return (see cpu.h). ext is the EXT bit of error
 * codes: 1 while an event that no instruction asked for is delivered, else 0.
 */
#ifndef X86_DESCRIPTOR_H
#define X86_DESCRIPTOR_H

#include "x86/cpu.h"

/* System descriptor types (SDM vol. 3, table 3-2). */
enum x86_system_type {
    X86_TYPE_TSS16 = 1,
    X86_TYPE_LDT = 2,
    X86_TYPE_TSS16_BUSY = 3,
    X86_TYPE_CALL_GATE16 = 4,
    X86_TYPE_TASK_GATE = 5,
    X86_TYPE_INTERRUPT_GATE16 = 6,
    X86_TYPE_TRAP_GATE16 = 7,
    X86_TYPE_TSS = 9, /* 32-bit; 64-bit in long mode, as all from here */
    X86_TYPE_TSS_BUSY = 11,
    X86_TYPE_CALL_GATE = 12,
    X86_TYPE_INTERRUPT_GATE = 14,
    X86_TYPE_TRAP_GATE = 15,
};

#define X86_TSS_BUSY 0x2u /* in the type */

/* A descriptor as it is in memory. high is the upper half of a 16-byte one, else 0. */
struct x86_descriptor {
    uint64_t low, high;
    uint64_t linear; /* where it is */
};

static inline bool x86_selector_is_null(uint16_t selector)
{
    return (selector & 0xfffcu) == 0;
}
static inline unsigned x86_rpl(uint16_t selector)
{
    return selector & 3u;
}
/* Error code of a fault that selector is to blame for (SDM vol. 3, 6.13). */
static inline uint32_t x86_selector_code(uint16_t selector, unsigned ext)
{
    return (selector & 0xfffcu) | ext;
}

/* As in struct x86_segment. */
static inline uint16_t x86_descriptor_attributes(const struct x86_descriptor *d)
{
    return (uint16_t)(d->low >> 40 & 0xf0ffu);
}
static inline unsigned x86_descriptor_dpl(const struct x86_descriptor *d)
{
    return d->low >> 45 & 3u;
}
static inline bool x86_descriptor_present(const struct x86_descriptor *d)
{
    return d->low >> 47 & 1u;
}
/* Type of a system descriptor, or 0 (reserved) for a code or data segment. */
static inline unsigned x86_descriptor_system_type(const struct x86_descriptor *d)
{
    return (d->low >> 44 & 1u) ? 0 : (unsigned)(d->low >> 40 & 15u);
}
static inline uint64_t x86_descriptor_base(const struct x86_descriptor *d)
{
    return (d->low >> 16 & 0xffffffu) | (d->low >> 56 & 0xffu) << 24 | d->high << 32;
}
static inline uint32_t x86_descriptor_limit(const struct x86_descriptor *d)
{
    uint32_t limit = (uint32_t)((d->low & 0xffffu) | (d->low >> 32 & 0xf0000u));

    return (d->low >> 55 & 1u) ? limit << 12 | 0xfffu : limit;
}

static inline uint16_t x86_gate_selector(const struct x86_descriptor *d)
{
    return (uint16_t)(d->low >> 16);
}
/* Whole offset; only the low 16 bits belong to a 16-bit gate. */
static inline uint64_t x86_gate_offset(const struct x86_descriptor *d)
{
    return (d->low & 0xffffu) | (d->low >> 48) << 16 | d->high << 32;
}
static inline unsigned x86_gate_count(const struct x86_descriptor *d)
{
    return d->low >> 32 & 31u; /* parameters to copy */
}
static inline unsigned x86_gate_ist(const struct x86_descriptor *d)
{
    return d->low >> 32 & 7u;
}

/* What kind of segment attributes describe. */
static inline bool x86_is_code(uint16_t attributes)
{
    return (attributes & (X86_SEG_S | X86_SEG_CODE)) == (X86_SEG_S | X86_SEG_CODE);
}
static inline bool x86_is_conforming(uint16_t attributes)
{
    return x86_is_code(attributes) && (attributes & X86_SEG_CONFORMING);
}
static inline bool x86_is_writable_data(uint16_t attributes)
{
    return (attributes & (X86_SEG_S | X86_SEG_CODE | X86_SEG_WRITABLE)) ==
           (X86_SEG_S | X86_SEG_WRITABLE);
}
static inline bool x86_is_readable(uint16_t attributes)
{
    return (attributes & X86_SEG_S) &&
           (attributes & (X86_SEG_CODE | X86_SEG_READABLE)) != X86_SEG_CODE;
}

/* GDT, LDT, IDT and TSS: supervisor access, 32-bit linear addresses outside long mode. */
uint64_t x86_read_system(struct x86_cpu *cpu, uint64_t linear, unsigned size_bytes);
void x86_write_system(struct x86_cpu *cpu, uint64_t linear, uint64_t value, unsigned size_bytes);
/* Atomic OR; returns the old byte. */
uint8_t x86_set_bits_system(struct x86_cpu *cpu, uint64_t linear, uint8_t bits);

/*
 * Host memory of size_bytes at linear for an access that nothing is to be said of, or NULL: then
 * the functions above do it, or find what is wrong.
 */
static inline uint8_t *x86_host_at(struct x86_cpu *cpu, uint64_t linear, unsigned size_bytes,
                                   unsigned access)
{
    uint64_t offset = linear & 0xfff;
    uint8_t *page;

    if (offset + size_bytes > 0x1000 || !cpu->ops->page)
        return NULL;
    page = cpu->ops->page(cpu, linear, access);
    return page ? page + offset : NULL;
}
/*
 * The descriptor that selector names, if it is present, accessed and of privilege dpl,
 * and its bits in mask are those of want (attributes, as in struct x86_segment). Else, or if it is
 * not at hand, false.
 */
bool x86_plain_descriptor(struct x86_cpu *cpu, uint16_t selector, unsigned dpl, uint16_t mask,
                          uint16_t want, struct x86_descriptor *out);
#define X86_PLAIN_CODE_MASK                                                                        \
    (X86_SEG_S | X86_SEG_CODE | X86_SEG_CONFORMING | X86_SEG_L | X86_SEG_DB) /* of 64 bits */
#define X86_PLAIN_CODE (X86_SEG_S | X86_SEG_CODE | X86_SEG_L)

/*
 * The 8 bytes that selector names in the GDT or LDT. find returns false if the selector is beyond
 * the table; get raises vector with the selector's error code then. Null is not treated specially.
 */
bool x86_descriptor_find(struct x86_cpu *cpu, uint16_t selector, struct x86_descriptor *out);
void x86_descriptor_get(struct x86_cpu *cpu, uint16_t selector, uint8_t vector, unsigned ext,
                        struct x86_descriptor *out);
/* In long mode, read the upper half of a system descriptor; false if beyond the table or malformed.
 */
bool x86_descriptor_extend(struct x86_cpu *cpu, uint16_t selector, struct x86_descriptor *d);

/* Set the accessed bit in memory if it is clear. */
void x86_descriptor_touch(struct x86_cpu *cpu, const struct x86_descriptor *d);
/* The segment register's contents after loading selector, which names d. */
static inline struct x86_segment x86_segment_from(uint16_t selector, const struct x86_descriptor *d)
{
    return (struct x86_segment){
        .base = x86_descriptor_base(d),
        .limit = x86_descriptor_limit(d),
        .selector = selector,
        .attributes = x86_descriptor_attributes(d) | X86_SEG_ACCESSED,
    };
}
/* After loading a null selector; SS keeps the privilege level. */
static inline struct x86_segment x86_null_segment(uint16_t selector, unsigned dpl)
{
    return (struct x86_segment){
        .selector = selector,
        .attributes = (uint16_t)(dpl << X86_SEG_DPL_SHIFT),
    };
}
/* After loading selector in real or virtual-8086 mode into a register that holds old. */
struct x86_segment x86_real_segment(const struct x86_cpu *cpu, uint16_t selector,
                                    const struct x86_segment *old);
struct x86_segment x86_v86_segment(uint16_t selector);

/*
 * Raise #GP(ext) unless execution can begin at rip in the code segment with these attributes
 * and limit: canonical in 64-bit code, else within the limit.
 */
void x86_check_target(struct x86_cpu *cpu, uint16_t attributes, uint32_t limit, uint64_t rip,
                      unsigned ext);

/*
 * A stack that is being pushed to or popped from. Registers do not change until x86_stack_commit().
 */
struct x86_stack {
    struct x86_segment ss;            /* as it is or will be in SS */
    struct x86_descriptor descriptor; /* of a new SS, for its accessed bit; low is 0 if none */
    uint64_t sp;                      /* all of RSP: 16-bit stacks change the low half only */
    bool flat;                        /* 64-bit: no base, no limit */
    unsigned access;     /* X86_ACCESS_SUPERVISOR for a more privileged level's, else 0 */
    uint32_t fault_code; /* of #SS */
};

/* The stack in use; flat as the current mode says. */
void x86_stack_current(struct x86_cpu *cpu, uint32_t fault_code, struct x86_stack *out);
/*
 * The stack that the TSS holds for privilege level dpl, or for ist (1-7; 0: none) in long mode.
 * Raises #TS and #SS as SDM vol. 3, 5.8.5 and 6.12.1 say.
 */
void x86_stack_from_tss(struct x86_cpu *cpu, unsigned dpl, unsigned ist, unsigned ext,
                        struct x86_stack *out);
/* Raise #SS if count values of size_bytes cannot be pushed, by segment limit or canonical address.
 */
void x86_stack_need(struct x86_cpu *cpu, const struct x86_stack *stack, unsigned count,
                    unsigned size_bytes);
/* The same for popping them. */
void x86_stack_have(struct x86_cpu *cpu, const struct x86_stack *stack, unsigned count,
                    unsigned size_bytes);
void x86_stack_push(struct x86_cpu *cpu, struct x86_stack *stack, uint64_t value,
                    unsigned size_bytes);
uint64_t x86_stack_pop(struct x86_cpu *cpu, struct x86_stack *stack, unsigned size_bytes);
/* Value at sp + offset_bytes. */
uint64_t x86_stack_peek(struct x86_cpu *cpu, const struct x86_stack *stack, uint64_t offset_bytes,
                        unsigned size_bytes);
/* Add to the stack pointer, within the stack's width. */
void x86_stack_skip(struct x86_stack *stack, uint64_t size_bytes);
/* RSP becomes stack->sp; SS is the caller's. */
static inline void x86_stack_commit(struct x86_cpu *cpu, const struct x86_stack *stack)
{
    cpu->s.gpr[X86_RSP] = stack->sp;
}

/* The checks of an SS that goes with privilege level cpl; bad: #TS or #GP, absent: #SS. */
void x86_check_ss(struct x86_cpu *cpu, uint16_t selector, unsigned cpl, uint8_t bad, unsigned ext,
                  struct x86_descriptor *out);

/* Return to a less privileged level: registers it may not use become null (SDM vol. 3, 5.8.6). */
void x86_drop_inner_segments(struct x86_cpu *cpu);

/*
 * EXT bit for error codes of faults that delivering event meets, and the image of RFLAGS that the
 * event saves (exceptions.c).
 */
unsigned x86_event_ext(const struct x86_event *event);
uint64_t x86_event_flags(const struct x86_cpu *cpu, const struct x86_event *event);
/*
 * Virtual-8086 mode was entered: VIF and VIP together are #GP(0) before the first instruction
 * (SDM vol. 3, 20.3.2). Registers are already the new ones.
 */
void x86_check_virtual_interrupt(struct x86_cpu *cpu);

#endif
