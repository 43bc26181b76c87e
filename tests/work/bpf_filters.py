"""Filters of sockets, each compiled by the kernel: what they let through is counted."""
import ctypes
import socket
import struct

SO_ATTACH_FILTER = 26
LOAD_WORD, ADD, EQUAL, RETURN = 0x20, 0x04, 0x15, 0x06

sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.setblocking(False)
wrong = 0
for i in range(2000):
    terms = [i + j for j in range(i % 50)]
    program = [(LOAD_WORD, 0, 0, 0)] + [(ADD, 0, 0, t) for t in terms] + [
        (EQUAL, 0, 1, (0x01020304 + sum(terms)) & 0xffffffff), (RETURN, 0, 0, 0xffff), (RETURN, 0, 0, 0)]
    code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in program))
    receiver.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                        struct.pack('HxxxxxxQ', len(program), ctypes.addressof(code)))
    got = []
    for packet in (b'\1\2\3\4yes', b'\1\2\3\5no'):
        try:
            sender.send(packet)
        except OSError:
            pass
    try:
        while True:
            got.append(receiver.recv(100))
    except BlockingIOError:
        pass
    wrong += got != [b'\1\2\3\4yes']
print('filters', wrong, 'wrong')
raise SystemExit(wrong != 0)
