// Bare-metal program for the RV64 vCPU: computes things whose answers are known from elsewhere and stores them, a doubleword each, at `answers`.
// Compiled at several optimisation levels and extensions, it runs the code that compilers make.
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

volatile u64 answers[32];

void *memset(void *to, int byte, u64 count) { for (u8 *p = to; count--;) *p++ = (u8)byte; return to; }
void *memcpy(void *to, const void *from, u64 count) {
	u8 *p = to; const u8 *q = from;
	while (count--) *p++ = *q++;
	return to;
}

// CRC-32 (ISO 3309), check value of "123456789"
static u32 crc32(const u8 *text, u64 length) {
	u32 crc = ~0u;
	for (u64 i = 0; i < length; i++) {
		crc ^= text[i];
		for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (0xedb88320u & -(crc & 1));
	}
	return ~crc;
}

// SHA-256 (FIPS 180-4); its constants are computed: the fractional parts of roots of primes, with integer arithmetic
static u32 K[64], H0[8];
static u64 root(unsigned __int128 n, int degree) {
	u64 low = 0, high = 1ul << 36;
	while (high - low > 1) {
		u64 middle = (low + high) / 2;
		unsigned __int128 power = (unsigned __int128)middle * middle;
		int over;
		if (degree == 2) over = power > n;
		else over = power > n / middle;
		if (over) high = middle; else low = middle;
	}
	return low;
}
static void constants(void) {
	int found = 0;
	for (u32 p = 2; found < 64; p++) {
		int prime = 1;
		for (u32 d = 2; d * d <= p; d++) if (p % d == 0) prime = 0;
		if (!prime) continue;
		K[found] = (u32)root((unsigned __int128)p << 96, 3); // 32 fraction bits of the cube root
		if (found < 8) H0[found] = (u32)root((unsigned __int128)p << 64, 2);
		found++;
	}
}
static u32 rotate(u32 x, int n) { return x >> n | x << (32 - n); }
static void sha256(const u8 *text, u64 length, u32 *h) {
	u8 block[64];
	u64 done = 0;
	int padded = 0, finished = 0;
	memcpy(h, H0, sizeof H0);
	while (!finished) {
		u64 n = length - done < 64 ? length - done : 64;
		memset(block, 0, 64);
		memcpy(block, text + done, n);
		done += n;
		if (n < 64 && !padded) { block[n] = 0x80; padded = 1; if (n < 56) finished = 1; }
		else if (n == 0) finished = 1;
		if (finished) for (int i = 0; i < 8; i++) block[63 - i] = (u8)(length * 8 >> 8 * i);
		u32 w[64];
		for (int i = 0; i < 16; i++) w[i] = (u32)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
		for (int i = 16; i < 64; i++) {
			u32 a = w[i - 15], b = w[i - 2];
			w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
		}
		u32 v[8];
		memcpy(v, h, sizeof v);
		for (int i = 0; i < 64; i++) {
			u32 t1 = v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
			u32 t2 = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
			for (int k = 7; k > 0; k--) v[k] = v[k - 1];
			v[4] += t1;
			v[0] = t1 + t2;
		}
		for (int i = 0; i < 8; i++) h[i] += v[i];
	}
}

// Queens on a board of 8: 92 placements
static int queens(int row, u32 columns, u32 left, u32 right) {
	if (row == 8) return 1;
	int count = 0;
	for (int c = 0; c < 8; c++) {
		u32 bit = 1u << c;
		if (columns & bit || left & 1u << (row + c) || right & 1u << (row - c + 7)) continue;
		count += queens(row + 1, columns | bit, left | 1u << (row + c), right | 1u << (row - c + 7));
	}
	return count;
}

// Iterations of the Mandelbrot set over a grid, summed: the caller computes the same sum in its own binary64
static u64 mandelbrot(void) {
	u64 sum = 0;
	for (int y = 0; y < 48; y++) for (int x = 0; x < 48; x++) {
		double cr = x * (3.0 / 48) - 2.25, ci = y * (2.5 / 48) - 1.25, zr = 0, zi = 0;
		int n = 0;
		while (n < 200 && zr * zr + zi * zi <= 4) {
			double next = zr * zr - zi * zi + cr;
			zi = 2 * zr * zi + ci;
			zr = next;
			n++;
		}
		sum += (u64)n * (u64)(x + 48 * y + 1);
	}
	return sum;
}

static u64 bits(double value) { union { double d; u64 u; } it = { value }; return it.u; }

// The same in binary32, with a square root and a division: bits of the result
static u64 singles(void) {
	float sum = 0;
	for (int n = 1; n < 2000; n++) sum += __builtin_sqrtf((float)n) / (float)(n + 3);
	union { float f; u32 u; } it = { sum };
	return it.u;
}

static double harmonic(void) {
	double sum = 0;
	for (long n = 1; n <= 5000; n++) sum += 1.0 / (double)n;
	return sum;
}

void main(void) {
	static const u8 abc[] = "abc", digits[] = "123456789";
	static u8 many[1000];
	u32 h[8];
	answers[0] = crc32(digits, 9);
	constants();
	answers[1] = K[0]; // 0x428a2f98
	answers[2] = H0[0]; // 0x6a09e667
	sha256(abc, 3, h);
	answers[3] = (u64)h[0] << 32 | h[1];
	answers[4] = (u64)h[6] << 32 | h[7];
	memset(many, 'a', sizeof many);
	sha256(many, sizeof many, h);
	answers[5] = (u64)h[0] << 32 | h[1];
	answers[6] = (u64)queens(0, 0, 0, 0);
	answers[7] = mandelbrot();
	answers[8] = singles();
	answers[9] = bits(harmonic());
	unsigned __int128 factorial = 1;
	for (u64 n = 1; n <= 33; n++) factorial *= n;
	answers[10] = (u64)(factorial >> 64);
	answers[11] = (u64)factorial;
	answers[12] = (u64)(factorial / 1000000007 % 1000000009);
	answers[13] = 0x600d;
}

// A stack behind the program; wfi ends the run
__asm__(".section .text.start,\"ax\"\n.globl _start\n_start: lla sp, stack + 16384\n call main\n1: wfi\n j 1b\n.bss\n.balign 16\nstack: .zero 16384\n.text\n");
