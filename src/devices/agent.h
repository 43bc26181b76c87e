/*
 * agent.h - the clipboard's way into the guest
 */
#ifndef DEVICES_AGENT_H
#define DEVICES_AGENT_H

#define AGENT_PORT_NAME                                                                            \
    "com.redhat.spice.0" /* the port that the program in the guest looks for                       \
                          */

struct chardev;
struct device;
struct device_class;

extern const struct device_class agent_class;

/* What is connected to the port; the device's own. */
struct chardev *agent_chardev(struct device *dev);

#endif
