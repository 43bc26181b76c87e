/*
 * test_device.c - life of a device, its claims and lines; the order of a reset
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "device_test.h"

static char history[256]; /* "attach a;reset a;..." */

struct probe {
    struct device dev;
    uint16_t port;
    uint16_t second_port; /* 0: none */
    uint64_t gpa;         /* 0: none */
    bool fail;
    char *label;
    void *peer;

    uint8_t value;
    struct irq_line irq, lines[2];
};

static struct probe *probe_of(struct device *dev)
{
    return container_of(dev, struct probe, dev);
}

static void note(struct device *dev, const char *what)
{
    char text[64];

    snprintf(text, sizeof(text), "%s %s;", what, dev->id);
    strncat(history, text, sizeof(history) - strlen(history) - 1);
}

static const struct region_ops ops = {.name = "probe"};

static int probe_attach(struct device *dev, struct error *err)
{
    struct probe *probe = probe_of(dev);
    int ret = probe->port ? device_map_ports(dev, probe->port, 4, &ops, err) : 0;

    note(dev, "attach");
    if (!ret && probe->second_port)
        ret = device_map_ports(dev, probe->second_port, 4, &ops, err);
    if (!ret && probe->gpa)
        ret = device_map_memory(dev, probe->gpa, 0x1000, &ops, err);
    if (!ret && probe->fail)
        ret = error_set(err, EIO, "told to fail");
    return ret;
}

static void probe_reset(struct device *dev)
{
    note(dev, "reset");
    probe_of(dev)->value = 0;
}

static void probe_reset_done(struct device *dev)
{
    note(dev, "done");
}

static void probe_quiesce(struct device *dev)
{
    note(dev, "quiesce");
}

static void probe_resume(struct device *dev)
{
    note(dev, "resume");
}

static void probe_detach(struct device *dev)
{
    note(dev, "detach");
}

static const struct property probe_properties[] = {
    PROPERTY_U16(struct probe, port, 0, "first port"),
    PROPERTY_U16(struct probe, second_port, 0, "first port of the second four"),
    PROPERTY_U64(struct probe, gpa, 0, "address of registers"),
    PROPERTY_BOOL(struct probe, fail, false, "refuse to attach"),
    PROPERTY_STRING(struct probe, label, "none", "some text"),
    PROPERTY_POINTER(struct probe, peer, "another one"),
    PROPERTY_END,
};

static const struct device_output probe_outputs[] = {
    DEVICE_OUTPUT(struct probe, irq),
    DEVICE_OUTPUTS(struct probe, lines),
    DEVICE_OUTPUT_END,
};

static const struct state_field probe_state[] = {
    STATE_U8(struct probe, value),
    STATE_LINE(struct probe, irq),
    STATE_END,
};

static const struct device_class probe_class = {
    .name = "probe",
    .summary = "takes notes",
    .instance_size = sizeof(struct probe),
    .properties = probe_properties,
    .outputs = probe_outputs,
    .attach = probe_attach,
    .reset = probe_reset,
    .reset_done = probe_reset_done,
    .quiesce = probe_quiesce,
    .resume = probe_resume,
    .detach = probe_detach,
    .state = {.version = 1, .oldest = 1, .fields = probe_state},
};

static struct device_test *t;

static int set_up(void **state)
{
    history[0] = 0;
    t = device_test_new(0);
    return 0;
}

static int tear_down(void **state)
{
    device_test_free(t);
    return 0;
}

static void names_are_numbered(void **state)
{
    struct error err = {0};
    struct device *one = device_new(t->machine, &probe_class, NULL, &err);
    struct device *two = device_new(t->machine, &probe_class, NULL, &err);
    struct device *own = device_new(t->machine, &probe_class, "mine", &err);

    assert_string_equal(one->id, "probe");
    assert_string_equal(two->id, "probe-2");
    assert_string_equal(own->id, "mine");
    assert_ptr_equal(machine_find_device(t->machine, "probe-2"), two);
    assert_ptr_equal(machine_first_device(t->machine), one);
    assert_ptr_equal(one->next, two);
    assert_null(machine_find_device(t->machine, "other"));
    assert_null(device_new(t->machine, &probe_class, "mine", &err));
    assert_int_equal(err.code, EEXIST);
    error_clear(&err);
    assert_null(
        device_new(t->machine, &probe_class, "a name that is much too long to be one", &err));
    assert_int_equal(err.code, EINVAL);
}

static void properties_are_set_before_attach(void **state)
{
    struct device *dev = device_test_create(t, &probe_class, NULL);
    struct error err = {0};
    int peer;

    assert_string_equal(probe_of(dev)->label, "none");
    assert_int_equal(device_set(dev, "label", "a,b", &err), 0);
    assert_string_equal(probe_of(dev)->label, "a,b");
    assert_int_equal(device_set_u64(dev, "gpa", 0xfffffffff000, &err), 0);
    assert_int_equal(probe_of(dev)->gpa, 0xfffffffff000);
    assert_int_equal(device_set_pointer(dev, "peer", &peer, &err), 0);
    assert_ptr_equal(probe_of(dev)->peer, &peer);
    assert_int_equal(device_set_pointer(dev, "label", &peer, &err), -ENOENT);
    error_clear(&err);
    assert_int_equal(device_set(dev, "lable", "x", &err), -ENOENT);
    assert_non_null(strstr(err.text, "device 'probe'"));
    assert_non_null(strstr(err.text, "'label'"));
    device_test_attach(dev);
    assert_int_equal(device_set(dev, "label", "x", NULL), -EBUSY);
    assert_int_equal(device_set_pointer(dev, "peer", NULL, NULL), -EBUSY);
}

static void a_failed_attach_undoes_its_claims(void **state)
{
    struct device *dev = device_test_create(t, &probe_class, "port=0x10,gpa=0xfe000000,fail=on");
    struct error err = {0};

    assert_int_equal(device_attach(dev, &err), -EIO);
    assert_non_null(strstr(err.text, "device 'probe': told to fail"));
    assert_false(dev->attached);
    assert_string_equal(history, "attach probe;detach probe;");
    device_test_add(t, &probe_class, "port=0x10,gpa=0xfe000000");
    assert_ptr_equal(machine_find_device(t->machine, "probe"), dev); /* still listed */
}

static void claims_exclude_each_other(void **state)
{
    struct device *second;
    struct error err = {0};

    device_test_add(t, &probe_class, "port=0x10,gpa=0xfe000000");
    second = device_test_create(t, &probe_class, "port=0x20,second-port=0x13");
    assert_int_equal(device_attach(second, &err), -EBUSY);
    assert_non_null(strstr(err.text, "port 0x13 belongs to 'probe'"));
    error_clear(&err);
    assert_int_equal(device_set(second, "second-port", "0", &err), 0);
    assert_int_equal(device_set(second, "gpa", "0xfe000fff", &err), 0);
    assert_int_equal(device_attach(second, &err), -EBUSY);
    assert_non_null(strstr(err.text, "belong to 'probe'"));
    error_clear(&err);
    assert_int_equal(device_set(second, "gpa", "0xfe001000", &err), 0);
    assert_int_equal(device_attach(second, &err), 0);
    assert_int_equal(device_attach(second, &err), -EBUSY); /* twice */
    assert_true(second->attached);
}

static void claims_must_exist(void **state)
{
    struct device *dev = device_test_add(t, &probe_class, NULL);

    assert_int_equal(device_map_ports(dev, 0xfffe, 4, &ops, NULL), -EINVAL);
    assert_int_equal(device_map_ports(dev, 0x10, 0, &ops, NULL), -EINVAL);
    assert_int_equal(device_map_memory(dev, UINT64_MAX - 10, 100, &ops, NULL), -EINVAL);
    assert_int_equal(device_map_memory(dev, 0xfe000000, 0, &ops, NULL), -EINVAL);
    assert_int_equal(device_map_ports(dev, 0xfffc, 4, &ops, NULL), 0);
}

static void ports_can_be_given_back(void **state)
{
    struct device *one = device_test_add(t, &probe_class, "port=0x10");
    struct device *two = device_test_add(t, &probe_class, NULL);

    device_unmap_ports(one, 0x10, 2); /* not what was claimed */
    assert_int_equal(device_map_ports(two, 0x10, 4, &ops, NULL), -EBUSY);
    device_unmap_ports(one, 0x10, 4);
    assert_int_equal(device_map_ports(two, 0x10, 4, &ops, NULL), 0);
}

static void a_reset_has_two_steps(void **state)
{
    device_test_add(t, &probe_class, NULL);
    device_test_create(t, &probe_class, NULL); /* probe-2 is not attached: left alone */
    device_test_add(t, &probe_class, NULL);
    history[0] = 0;
    device_test_start(t);
    assert_string_equal(history, "reset probe;reset probe-3;done probe;done probe-3;");
    history[0] = 0;
    device_test_reset(t);
    assert_string_equal(history, "reset probe;reset probe-3;done probe;done probe-3;");
}

static void a_pause_tells_the_devices(void **state)
{
    device_test_add(t, &probe_class, NULL);
    device_test_start(t);
    history[0] = 0;
    machine_pause(t->machine);
    machine_pause(t->machine);
    assert_int_equal(machine_get_state(t->machine), MACHINE_PAUSED);
    machine_resume(t->machine);
    machine_resume(t->machine);
    assert_string_equal(history, "quiesce probe;resume probe;");
}

static void the_last_created_goes_first(void **state)
{
    struct device_test *other = device_test_new(0);

    device_test_add(other, &probe_class, NULL);
    device_test_add(other, &probe_class, NULL);
    history[0] = 0;
    device_test_free(other);
    assert_string_equal(history, "detach probe-2;detach probe;");
}

static void outputs_are_found_by_name(void **state)
{
    struct probe *probe = probe_of(device_test_add(t, &probe_class, NULL));

    assert_ptr_equal(device_output(&probe->dev, "irq", 0), &probe->irq);
    assert_ptr_equal(device_output(&probe->dev, "lines", 1), &probe->lines[1]);
    assert_null(device_output(&probe->dev, "irq", 1));
    assert_null(device_output(&probe->dev, "lines", 2));
    assert_null(device_output(&probe->dev, "other", 0));
}

static void a_sink_hears_every_call(void **state)
{
    struct probe *probe = probe_of(device_test_add(t, &probe_class, NULL));
    struct test_irq irq;

    irq_set(&probe->irq, true); /* not connected */
    assert_true(probe->irq.level);
    test_irq_connect(&irq, &probe->irq);
    irq_set(&probe->irq, true);
    irq_set(&probe->irq, true);
    irq_set(&probe->irq, false);
    irq_pulse(&probe->irq);
    assert_int_equal(irq.calls, 5);
    assert_int_equal(irq.rises, 2);
    assert_int_equal(irq.falls, 2);
    assert_false(probe->irq.level);
}

static void messages_go_to_the_controllers_range_only(void **state)
{
    msi_send(t->machine, 0xfee01000, 0x41);
    assert_int_equal(t->msi_count, 1);
    assert_int_equal(t->msi_address, 0xfee01000);
    assert_int_equal(t->msi_data, 0x41);
    msi_send(t->machine, 0xfef00000, 0x41);
    msi_send(t->machine, 0xfedfffff, 0x41);
    msi_send(t->machine, 0x1fee00000, 0x41);
    assert_int_equal(t->msi_count, 1);
    machine_set_msi_sink(t->machine, NULL, NULL);
    msi_send(t->machine, 0xfee01000, 0x41);
}

static int acknowledge(void *opaque)
{
    return *(int *)opaque;
}

static void the_pic_is_asked(void **state)
{
    int vector = 0x20;

    assert_int_equal(machine_pic_acknowledge(t->machine), -1);
    machine_set_pic(t->machine, acknowledge, &vector);
    assert_int_equal(machine_pic_acknowledge(t->machine), 0x20);
}

static void a_round_trip_keeps_the_state(void **state)
{
    struct probe *probe = probe_of(device_test_add(t, &probe_class, NULL));

    device_test_start(t);
    probe->value = 77;
    irq_set(&probe->irq, true);
    device_test_round_trip(t, &probe->dev);
    assert_int_equal(probe->value, 77);
    assert_true(probe->irq.level);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_are_numbered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(properties_are_set_before_attach, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_attach_undoes_its_claims, set_up, tear_down),
        cmocka_unit_test_setup_teardown(claims_exclude_each_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(claims_must_exist, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ports_can_be_given_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_reset_has_two_steps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_pause_tells_the_devices, set_up, tear_down),
        cmocka_unit_test(the_last_created_goes_first),
        cmocka_unit_test_setup_teardown(outputs_are_found_by_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_sink_hears_every_call, set_up, tear_down),
        cmocka_unit_test_setup_teardown(messages_go_to_the_controllers_range_only, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_pic_is_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_round_trip_keeps_the_state, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
