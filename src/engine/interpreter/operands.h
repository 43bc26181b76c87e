/*
 * operands.h - register access by width, for the files that instantiate handlers by width
 */
#ifndef ENGINE_INTERPRETER_OPERANDS_H
#define ENGINE_INTERPRETER_OPERANDS_H

#include "engine/interpreter/interpreter.h"

/* Writing a 32-bit register clears the upper half (SDM vol. 1, 3.4.1.1). */
#define SET_REG8(offset, v)  (REG(c, offset, uint8_t) = (uint8_t)(v))
#define SET_REG16(offset, v) (REG(c, offset, uint16_t) = (uint16_t)(v))
#define SET_REG32(offset, v) (REG(c, offset, uint64_t) = (uint32_t)(v))
#define SET_REG64(offset, v) (REG(c, offset, uint64_t) = (v))

/* Effective address by kind known at build time (ea_index). */
#define EA_0(size, access)   (REG(c, i->base, uint64_t) + (uint64_t)i->disp)
#define EA_1(size, access)   ea_raw(c, i)
#define EA_2(size, access)   ea(c, i, size, access)

#define BY_SIZE(name)                                                                              \
    {                                                                                              \
        name##8, name##16, name##32, name##64                                                      \
    }
#define BY_EA(name)                                                                                \
    {                                                                                              \
        name##_0, name##_1, name##_2                                                               \
    }

/* Widths chosen at run time, for handlers that are not hot. */
static inline uint64_t reg_get(const struct icpu *c, uint16_t offset, unsigned bytes)
{
    switch (bytes) {
    case 1:
        return REG(c, offset, const uint8_t);
    case 2:
        return REG(c, offset, const uint16_t);
    case 4:
        return REG(c, offset, const uint32_t);
    default:
        return REG(c, offset, const uint64_t);
    }
}
static inline void reg_set(struct icpu *c, uint16_t offset, uint64_t value, unsigned bytes)
{
    switch (bytes) {
    case 1:
        SET_REG8(offset, value);
        break;
    case 2:
        SET_REG16(offset, value);
        break;
    case 4:
        SET_REG32(offset, value);
        break;
    default:
        SET_REG64(offset, value);
    }
}
static inline uint64_t load_sized(struct icpu *c, const struct op *i, uint64_t linear,
                                  unsigned bytes)
{
    switch (bytes) {
    case 1:
        return load8(c, i, linear);
    case 2:
        return load16(c, i, linear);
    case 4:
        return load32(c, i, linear);
    default:
        return load64(c, i, linear);
    }
}
static inline void store_sized(struct icpu *c, const struct op *i, uint64_t linear, uint64_t value,
                               unsigned bytes)
{
    switch (bytes) {
    case 1:
        store8(c, i, linear, (uint8_t)value);
        break;
    case 2:
        store16(c, i, linear, (uint16_t)value);
        break;
    case 4:
        store32(c, i, linear, (uint32_t)value);
        break;
    default:
        store64(c, i, linear, value);
    }
}

#endif
