/*
 * main.c - trapeze-sound: what a machine plays, on the host's own devices by SDL
 *
 * trapeze-sound SOCKET
 *
 * 'trapeze run --audio sdl' starts it with a socket that leads to the machine. It is a program of
 * its own, as what SDL loads and opens is no business of the machine's process, which is in a
 * sandbox. The first packet that it sends is empty, or says why it cannot play. Then each packet
 * that comes is frames of sound (AUDIO_HZ, 16 bits, left and right). What would sound
 * more than QUEUE_MS later than it should is left out: the machine's clock and the host's are not
 * the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <SDL.h>

#include "host/host.h"
#include "trapeze/audio.h"

#define FRAME_BYTES  4u
#define PACKET_BYTES 16384u
#define QUEUE_MS     200u
#define QUEUE_BYTES  (AUDIO_HZ / 1000 * QUEUE_MS * FRAME_BYTES)

static SDL_AudioDeviceID open_device(void)
{
    const SDL_AudioSpec wanted = {
        .freq = AUDIO_HZ, .format = AUDIO_S16SYS, .channels = 2, .samples = 512};

    return SDL_Init(SDL_INIT_AUDIO) ? 0 : SDL_OpenAudioDevice(NULL, 0, &wanted, NULL, 0);
}

int main(int count, char **words)
{
    static char packet[PACKET_BYTES];
    int socket = count == 2 ? atoi(words[1]) : -1;
    SDL_AudioDeviceID device = open_device();
    ssize_t size;

    if (!device) {
        host_send(socket, SDL_GetError(), strlen(SDL_GetError()), -1);
        return 1;
    }
    SDL_PauseAudioDevice(device, 0);
    host_send(socket, "", 1, -1);
    while ((size = recv(socket, packet, sizeof(packet), 0)) > 0)
        if (SDL_GetQueuedAudioSize(device) < QUEUE_BYTES)
            SDL_QueueAudio(device, packet, (Uint32)size);
    SDL_Quit();
    return 0;
}
