/*
 * gdb_registers.h - a processor's registers as GDB numbers and describes them
 */
#ifndef CONTROL_GDB_REGISTERS_H
#define CONTROL_GDB_REGISTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vcpu;

#define GDB_MAX_REGISTER_BYTES 16

unsigned gdb_register_count(void);
const char *gdb_register_name(unsigned number);
/* Bytes that a register has in the protocol, little endian. */
size_t gdb_register_size(unsigned number);

/* Copy a register out of vcpu->state (engine_ops.get_state before). */
void gdb_register_read(const struct vcpu *vcpu, unsigned number, uint8_t *out);
/*
 * Store into vcpu->state (engine_ops.set_state after). false for what cannot be set
 * on its own: control registers that switch modes, selectors outside real mode,
 * addresses that are not canonical. A value that is unchanged is always accepted.
 */
bool gdb_register_write(struct vcpu *vcpu, unsigned number, const uint8_t *value);

/* The target description (GDB manual, appendix G), made once; never freed. */
const char *gdb_target_xml(void);

#endif
