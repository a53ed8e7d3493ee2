/*
 * A driver of an NVMe drive in user space (NVM Express base specification 1.4): one pair of queues, messages at eventfds, polled by nobody.
 * `check BDF` says on standard error what went wrong; `bench BDF N` times N reads of 4 KiB, one at a time.
 */
#include "vfio-client.h"

#define IOVA 0x100000
#define BLOCKS 8		/* of 512 bytes, in a page */
struct command { uint32_t dw0, nsid, rsvd[4]; uint64_t prp1, prp2; uint32_t dw10, dw11, dw12, more[3]; };
struct completion { uint32_t result, rsvd; uint16_t head, sq, id, status; };
struct queue { struct command *sq; volatile struct completion *cq; int id, entries, tail, head, phase, event; };

static unsigned char *memory;
static struct queue admin, io;

static unsigned char *page(int n) { return memory + 4096 * n; }

static struct queue queue(int id, int entries, int pages, int event)
{
	return (struct queue){ (void *)page(pages), (void *)page(pages + 1), id, entries, 0, 0, 1, event };
}

static void submit(struct queue *q, struct command c)
{
	q->sq[q->tail] = c;
	q->tail = (q->tail + 1) % 16;
}

static void ring(const struct queue *q) { write32(0x1000 + 8 * q->id, q->tail); }
static void acknowledge(const struct queue *q) { write32(0x1004 + 8 * q->id, q->head); }

/* the completion that the next message tells of; all messages are counted */
static uint16_t await(struct queue *q)
{
	struct pollfd p = { .fd = q->event, .events = POLLIN };
	uint64_t count;
	uint16_t id;

	CHECK(poll(&p, 1, 20000) == 1);
	CHECK(read(q->event, &count, 8) == 8 && count == 1);
	CHECK((q->cq[q->head].status & 1) == q->phase);
	CHECK(q->cq[q->head].status >> 1 == 0);
	id = q->cq[q->head].id;
	q->head = (q->head + 1) % q->entries;
	if (q->head == 0)
		q->phase ^= 1;
	return id;
}

static void on_admin(struct command c)
{
	submit(&admin, c);
	ring(&admin);
	await(&admin);
	acknowledge(&admin);
}

/* `entries`: of the completion queue for I/O */
static void begin(const char *bdf, int entries)
{
	struct irq_set set = { .argsz = sizeof(set), .flags = 0x24, .index = 2, .count = 2 };

	attach_device(bdf);
	enable();
	memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	map(memory, 1 << 20, IOVA);
	admin = queue(0, 16, 0, set.fd = eventfd(0, EFD_CLOEXEC));
	io = queue(1, entries, 2, set.more = eventfd(0, EFD_CLOEXEC));
	CHECK(!ioctl(device, VFIO(10), &set));
	write32(0x24, 15 << 16 | 15);
	write64(0x28, IOVA);
	write64(0x30, IOVA + 4096);
	write32(0x14, 4 << 20 | 6 << 16 | 1);
	while (!(read32(0x1c) & 1))
		;
	on_admin((struct command){ .dw0 = 5, .prp1 = IOVA + 3 * 4096, .dw10 = (entries - 1) << 16 | 1, .dw11 = 1 << 16 | 3 });
	on_admin((struct command){ .dw0 = 1, .prp1 = IOVA + 2 * 4096, .dw10 = 15 << 16 | 1, .dw11 = 1 << 16 | 1 });
}

/* 1 writes, 2 reads a page of the drive from or to a page of memory */
static struct command transfer(int opcode, int id, int from, int to)
{
	return (struct command){ .dw0 = id << 16 | opcode, .nsid = 1, .prp1 = IOVA + 4096 * to, .dw10 = BLOCKS * from, .dw12 = BLOCKS - 1 };
}

static void check(const char *bdf)
{
	struct pollfd p = { .events = POLLIN };

	/* room for one completion: the drive takes the second command when it hears that the first was seen, and nothing is asked of it meanwhile */
	begin(bdf, 2);
	p.fd = io.event;
	for (int round = 0; round < 20; round++) {
		memset(page(8), 0x40 + round, 4096);
		memset(page(9), 0, 4096);
		submit(&io, transfer(1, 2 * round, round, 8));
		submit(&io, transfer(2, 2 * round + 1, round, 9));
		ring(&io);
		/* whoever rings waits for what is soon done */
		CHECK(poll(&p, 1, 0) == 1);
		CHECK(await(&io) == 2 * round);
		acknowledge(&io);
		CHECK(await(&io) == 2 * round + 1);
		CHECK(!memcmp(page(8), page(9), 4096));
		acknowledge(&io);
	}
}

/* nanoseconds that a process's threads have run */
static double ran_ns(pid_t pid)
{
	char path[64];
	struct dirent *thread;
	double sum = 0, ns;
	DIR *threads;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	CHECK((threads = opendir(path)));
	while ((thread = readdir(threads))) {
		char file[512];
		FILE *f;

		snprintf(file, sizeof(file), "%s/%s/schedstat", path, thread->d_name);
		if ((f = fopen(file, "r"))) {
			if (fscanf(f, "%lf", &ns) == 1)
				sum += ns;
			fclose(f);
		}
	}
	closedir(threads);
	return sum;
}

static void bench(const char *bdf, int reads)
{
	double start = 0, server = 0, own = 0;

	begin(bdf, 16);
	for (int i = -reads; i < reads; i++) {
		/* the first half is to warm up */
		if (i == 0) {
			start = now_us();
			server = ran_ns(getppid());
			own = ran_ns(getpid());
		}
		submit(&io, transfer(2, i & 0xffff, i & 1023, 9));
		ring(&io);
		await(&io);
		acknowledge(&io);
	}
	printf("{\"nvmeReadUs\":%.1f,\"serverCpuUs\":%.1f,\"programCpuUs\":%.1f}\n", (now_us() - start) / reads,
	       (ran_ns(getppid()) - server) / 1e3 / reads, (ran_ns(getpid()) - own) / 1e3 / reads);
}

int main(int argc, char **argv)
{
	CHECK(argc >= 3);
	if (!strcmp(argv[1], "bench"))
		bench(argv[2], atoi(argv[3]));
	else
		check(argv[2]);
	return 0;
}
