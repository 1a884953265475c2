/* A load generator for relays of chats: one thread, epoll, a closed loop of CONCURRENCY connections that are kept.
 *
 *   door_load PORT json|flood|paced CONCURRENCY WARM_UP SECONDS [KEY] [LEAVE_EVERY]
 *
 * Prints one JSON object: what ended within SECONDS after WARM_UP seconds, p50 and p99 of the latency, of the time to the
 * first event, and of each event's way from the engine (its stamp) to here, in microseconds. `short` streams ended well
 * but lacked events; `stuck` requests were older than 5 s in the end. With LEAVE_EVERY each so many-th stream is left
 * after ten events, by closing its connection.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 100, LEAVE_AFTER = 10, STUCK_NS = 5 };
enum part { HEAD, LENGTH, SIZE, DATA, DATA_END, TRAILER };
typedef unsigned long long ns;

struct connection {
    int fd, digits, in_stamp, stamps, chunked, status, leaves;
    enum part part;
    char head[8192];
    size_t have, left;
    ns sent_at, first_at, stamp;
};

static struct values { /* of one quantity, in us */
    double *at;
    size_t count, room;
} latency, first, transit;
static size_t requests, chunks, all_requests, all_chunks, errors, shorts, reconnects, leavers, started;
static ns begin, end, now;
static int poller, streams, leave_every;
static struct sockaddr_in relay = {.sin_family = AF_INET};
static char request[2048];
static size_t request_size;

static ns clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void note(struct values *v, ns from) {
    if (now < begin || now > end) return;
    if (v->count == v->room) v->at = realloc(v->at, (v->room = v->room * 2 + 65536) * sizeof *v->at);
    v->at[v->count++] = ((double)now - (double)from) / 1000;
}

static void open_connection(struct connection *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (void *)&relay, sizeof relay)) {
        perror("connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event want = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &want);
}

static void ask(struct connection *c) {
    c->part = HEAD;
    c->have = c->left = 0;
    c->in_stamp = c->stamps = c->chunked = c->status = 0;
    c->leaves = leave_every && ++started % leave_every == 0;
    c->sent_at = clock_ns();
    c->first_at = 0;
    if (send(c->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) c->fd = (close(c->fd), -1);
}

static void again(struct connection *c) {
    do {
        if (c->fd >= 0) close(c->fd);
        open_connection(c);
        ask(c);
    } while (c->fd < 0 && ++errors < 10000);
}

static void scan(struct connection *c, const char *p, const char *stop) {
    while (p < stop) {
        if (!c->in_stamp) {
            p = memchr(p, '@', stop - p);
            if (!p) return;
            c->in_stamp = 1;
            c->digits = 0;
            c->stamp = 0;
            p++;
            continue;
        }
        if (*p >= '0' && *p <= '9') {
            c->stamp = c->stamp * 10 + (*p - '0');
            c->digits++;
        } else {
            c->in_stamp = 0;
            if (*p == '@' && c->digits == 19) {
                if (!c->stamps++) note(&first, c->sent_at);
                note(&transit, c->stamp);
                all_chunks++;
                if (now >= begin && now <= end) chunks++;
            }
        }
        p++;
    }
}

static void complete(struct connection *c) {
    all_requests++;
    if (c->status != 200) errors++;
    else if (streams && c->stamps != EVENTS) shorts++;
    else if (now >= begin && now <= end) requests++;
    note(&latency, c->sent_at);
    ask(c);
    if (c->fd < 0) again(c);
}

static void read_head(struct connection *c) {
    c->head[c->have] = 0;
    c->status = atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
    c->left = length ? strtoul(length + 17, NULL, 10) : 0;
    c->have = 0;
    c->part = c->chunked ? SIZE : LENGTH;
}

/* Take in what came; 1 when the reply is complete. */
static int feed(struct connection *c, const char *p, const char *stop) {
    while (p < stop) {
        size_t some;
        switch (c->part) {
        case HEAD:
            if (c->have == sizeof c->head - 1) return -1;
            c->head[c->have++] = *p++;
            if (c->have < 4 || memcmp(c->head + c->have - 4, "\r\n\r\n", 4)) break;
            read_head(c);
            if (c->part == LENGTH && !c->left) return 1;
            break;
        case LENGTH:
        case DATA:
            some = c->left < (size_t)(stop - p) ? c->left : (size_t)(stop - p);
            if (streams) scan(c, p, p + some);
            p += some;
            c->left -= some;
            if (c->left) break;
            if (c->part == LENGTH) return 1;
            c->part = DATA_END;
            c->have = 0;
            break;
        case DATA_END: /* the line break after a chunk */
            if (*p++ == '\n') c->part = SIZE;
            break;
        case SIZE:
            if (*p != '\n') {
                if (c->have < 16) c->head[c->have++] = *p;
                p++;
                break;
            }
            p++;
            c->head[c->have] = 0;
            c->left = strtoul(c->head, NULL, 16);
            c->have = 0;
            c->part = c->left ? DATA : TRAILER;
            break;
        case TRAILER:
            if (*p++ == '\n') return 1;
        }
    }
    return 0;
}

static void ready(struct connection *c) {
    static char buffer[1 << 18];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    now = clock_ns();
    if (got < 0 && errno == EAGAIN) return;
    int done = got > 0 ? feed(c, buffer, buffer + got) : -1;
    if (done > 0) complete(c);
    else if (done < 0) {
        /* A connection that was kept may be closed as the next request is on its way: no fault of the relay. */
        if (c->part == HEAD && !c->have) reconnects++;
        else errors++;
        if (reconnects + errors > 10000) exit((fprintf(stderr, "more than 10,000 replies were lost\n"), 1));
        again(c);
    } else if (c->leaves && c->stamps >= LEAVE_AFTER) {
        leavers++;
        again(c);
    }
}

static int by_size(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

static void print_values(const char *name, struct values *v) {
    qsort(v->at, v->count, sizeof *v->at, by_size);
    if (!v->count) printf("\"%s_us\": null, ", name);
    else printf("\"%s_us\": [%.1f, %.1f], ", name, v->at[v->count / 2], v->at[(size_t)(v->count * .99)]);
}

static void prepare(int port, const char *mode, const char *key) {
    char body[512], head[512] = "";
    streams = strcmp(mode, "json") != 0;
    sprintf(body, "{\"model\": \"demo\", \"messages\": [{\"role\": \"system\", \"content\": \"You are a helpful assistant.\"}, "
                  "{\"role\": \"user\", \"content\": \"%s: What is Deep Learning?\"}], \"max_tokens\": 100, \"temperature\": 0, "
                  "\"stream\": %s}", mode, streams ? "true" : "false");
    if (*key) snprintf(head, sizeof head, "Authorization: Bearer %s\r\n", key);
    request_size = snprintf(request, sizeof request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%sContent-Type: application/json\r\n"
        "User-Agent: door-load\r\nAccept: */*\r\nContent-Length: %zu\r\n\r\n%s", port, head, strlen(body), body);
    relay.sin_port = htons(port);
    relay.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

int main(int count, char **words) {
    if (count < 6) return fprintf(stderr, "how it is called stands at the top of door_load.c\n"), 2;
    int concurrency = atoi(words[3]), stuck = 0;
    struct rlimit files = {65536, 65536};
    struct epoll_event seen[512];
    struct connection *all = calloc(concurrency, sizeof *all);
    double seconds = atof(words[5]);
    leave_every = count > 7 ? atoi(words[7]) : 0;
    setrlimit(RLIMIT_NOFILE, &files);
    prepare(atoi(words[1]), words[2], count > 6 ? words[6] : "");
    poller = epoll_create1(0);
    begin = clock_ns() + (ns)(atof(words[4]) * 1e9);
    end = begin + (ns)(seconds * 1e9);
    for (int i = 0; i < concurrency; i++) all[i].fd = -1, again(&all[i]);
    while ((now = clock_ns()) < end) {
        int some = epoll_wait(poller, seen, 512, 100);
        for (int i = 0; i < some; i++) ready(seen[i].data.ptr);
    }
    for (int i = 0; i < concurrency; i++) stuck += now - all[i].sent_at > STUCK_NS * 1000000000ull;
    printf("{\"requests\": %zu, \"chunks\": %zu, \"seconds\": %g, \"all_requests\": %zu, \"all_chunks\": %zu, ", requests,
           chunks, seconds, all_requests, all_chunks);
    print_values("latency", &latency);
    print_values("first", &first);
    print_values("transit", &transit);
    printf("\"errors\": %zu, \"short\": %zu, \"reconnects\": %zu, \"left\": %zu, \"stuck\": %d}\n", errors, shorts, reconnects,
           leavers, stuck);
    return 0;
}
