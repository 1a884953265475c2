/* A stand-in for vLLM that costs next to nothing: one thread, epoll, HTTP/1.1 with keep-alive.
 *
 *   door_engine PORT    (0: a free one; the port is printed)
 *
 * A POST without "stream": true gets one reply of about 400 bytes. A stream has 100 events of about 200 bytes, each with
 * the CLOCK_MONOTONIC time in ns at which it was written, as "@19 digits@" in its text, where every relay leaves it. If
 * the word `paced` is in the body, the first event comes at once and one more at each tick of 20 ms, all streams at the
 * same tick, as an engine's step does it. Otherwise they come as fast as the reader takes them. GET is for probes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 100, TICK_NS = 20 * 1000 * 1000, MOST = 65536 };

struct connection {
    int fd, left, paced, place; /* events still to be sent; its place among the paced streams, or -1 */
    char *in, out[1024];
    size_t have, room, out_from, out_to;
};

static struct connection *connections[MOST], *paced[MOST];
static int paced_count, poller;

static const char HEAD[] = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                           "transfer-encoding: chunked\r\n\r\n";
static const char EVENT[] =
    "data: {\"id\":\"chatcmpl-benchmark\",\"object\":\"chat.completion.chunk\",\"created\":1763700000,\"model\":\"demo\","
    "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"@0000000000000000000@\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char LAST[] =
    "data: {\"id\":\"chatcmpl-benchmark\",\"object\":\"chat.completion.chunk\",\"created\":1763700000,\"model\":\"demo\","
    "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
static const char WHOLE[] =
    "{\"id\":\"chatcmpl-benchmark\",\"object\":\"chat.completion\",\"created\":1763700000,\"model\":\"demo\",\"choices\":"
    "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Deep learning fits many layers to data.\",\"tool_calls\":[]},"
    "\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":12,\"total_tokens\":20,"
    "\"completion_tokens\":8,\"prompt_tokens_details\":null},\"prompt_logprobs\":null,\"kv_transfer_params\":null}";
static const char MODELS[] = "{\"object\":\"list\",\"data\":[{\"id\":\"demo\",\"object\":\"model\",\"created\":1763700000,"
                             "\"owned_by\":\"vllm\",\"root\":\"demo\",\"parent\":null,\"max_model_len\":4096}]}";

static char event_chunk[512], *stamp_at, last_chunk[512], whole_reply[1024], models_reply[1024];
static size_t event_size, last_size, whole_size, models_size;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void prepare(void) {
    event_size = sprintf(event_chunk, "%zx\r\n%s\r\n", sizeof EVENT - 1, EVENT);
    stamp_at = strchr(event_chunk, '@') + 1;
    last_size = sprintf(last_chunk, "%zx\r\n%s\r\n0\r\n\r\n", sizeof LAST - 1, LAST);
    const char *head = "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s";
    whole_size = sprintf(whole_reply, head, sizeof WHOLE - 1, WHOLE);
    models_size = sprintf(models_reply, head, sizeof MODELS - 1, MODELS);
}

static void write_stamp(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    unsigned long long ns = now.tv_sec * 1000000000ull + now.tv_nsec;
    for (int i = 18; i >= 0; i--, ns /= 10) stamp_at[i] = '0' + ns % 10;
}

static void forget(struct connection *c) {
    if (c->place < 0) return;
    paced[c->place] = paced[--paced_count];
    paced[c->place]->place = c->place;
    c->place = -1;
}

static void drop(struct connection *c) {
    forget(c);
    connections[c->fd] = NULL;
    close(c->fd);
    free(c->in);
    free(c);
}

/* Send, and keep what the reader does not take yet; 0 when the connection is gone. */
static int put(struct connection *c, const char *data, size_t size) {
    ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return 0;
    if (sent < 0) sent = 0;
    memcpy(c->out, data + sent, size - sent);
    c->out_from = 0;
    c->out_to = size - sent;
    return 1;
}

/* Send up to `most` events; stop where the reader stops. 0 when the connection is gone. */
static int pump(struct connection *c, int most) {
    if (c->out_to) {
        ssize_t sent = send(c->fd, c->out + c->out_from, c->out_to - c->out_from, MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN;
        c->out_from += sent;
        if (c->out_from < c->out_to) return 1;
        c->out_to = 0;
    }
    while (c->left && most-- && !c->out_to) {
        write_stamp();
        if (!put(c, event_chunk, event_size)) return 0;
        if (--c->left) continue;
        forget(c);
        /* The end follows the last event, also where that one still waits. */
        if (!c->out_to) return put(c, last_chunk, last_size);
        memcpy(c->out + c->out_to, last_chunk, last_size);
        c->out_to += last_size;
    }
    return 1;
}

static int answer(struct connection *c, size_t head, size_t size) {
    if (c->in[0] != 'P') return put(c, models_reply, models_size);
    char *body = c->in + head;
    if (!memmem(body, size, "\"stream\":true", 13) && !memmem(body, size, "\"stream\": true", 14))
        return put(c, whole_reply, whole_size);
    c->left = EVENTS;
    c->paced = memmem(body, size, "paced", 5) != NULL;
    if (c->paced) {
        c->place = paced_count;
        paced[paced_count++] = c;
    }
    return put(c, HEAD, sizeof HEAD - 1) && pump(c, c->paced ? 1 : EVENTS);
}

/* Answer the request if all of it is there: 1 when it was, 0 when more is to come, -1 when the connection is gone. */
static int look(struct connection *c) {
    char *end = c->have ? memmem(c->in, c->have, "\r\n\r\n", 4) : NULL;
    if (!end) return 0;
    *end = 0; /* the header ends here, for strcasestr */
    char *length = strcasestr(c->in, "\r\ncontent-length:");
    *end = '\r';
    size_t head = end + 4 - c->in, size = length ? strtoul(length + 17, NULL, 10) : 0;
    if (c->have < head + size) return 0;
    if (!answer(c, head, size)) return -1;
    c->have -= head + size;
    memmove(c->in, c->in + head + size, c->have);
    return 1;
}

static int receive(struct connection *c) {
    for (;;) {
        if (c->have == c->room) c->in = realloc(c->in, c->room = c->room * 2 + 4096);
        ssize_t got = recv(c->fd, c->in + c->have, c->room - c->have, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN)) return 0;
        if (got < 0) return 1;
        c->have += got;
        int answered;
        while ((answered = look(c)) > 0) {}
        if (answered < 0) return 0;
    }
}

static void welcome(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = connections[fd] = calloc(1, sizeof *c);
        c->fd = fd;
        c->place = -1;
        struct epoll_event want = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &want);
    }
}

int main(int count, char **words) {
    struct rlimit files = {MOST, MOST};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), timer = timerfd_create(CLOCK_MONOTONIC, 0);
    setrlimit(RLIMIT_NOFILE, &files); /* best effort: as many as the hard limit allows otherwise */
    address.sin_port = htons(count > 1 ? atoi(words[1]) : 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, size) || listen(listener, 4096)) die("listen");
    getsockname(listener, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    prepare();
    struct itimerspec tick = {{0, TICK_NS}, {0, TICK_NS}};
    timerfd_settime(timer, 0, &tick, NULL);
    poller = epoll_create1(0);
    struct epoll_event want = {.events = EPOLLIN, .data.fd = listener}, seen[512];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &want);
    want.data.fd = timer;
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &want);
    for (;;) {
        int ready = epoll_wait(poller, seen, 512, -1);
        for (int i = 0; i < ready; i++) {
            int fd = seen[i].data.fd;
            struct connection *c = connections[fd];
            unsigned long long ticks;
            if (fd == listener) welcome(listener);
            else if (fd == timer && read(timer, &ticks, sizeof ticks) > 0) {
                for (int j = paced_count - 1; j >= 0; j--)
                    if (!pump(paced[j], 1)) drop(paced[j]);
            } else if (c && ((seen[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR) && !receive(c)) ||
                             (c->out_to + c->left && !pump(c, c->paced ? 0 : EVENTS))))
                drop(c);
        }
    }
}
