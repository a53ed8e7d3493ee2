// Random A64 integer instructions by group of the encoding table, for differential tests: what is drawn is mostly allocated, and reserved now and then.
// Loads and stores use X1 as base, X2 as index; neither is a destination of theirs.

export type Draw = (bound: number) => number;

const bits = (draw: Draw, count: number): number => draw(2 ** count);

export function randomInstruction(draw: Draw): number {
  const [d, n, m, a] = [bits(draw, 5), bits(draw, 5), bits(draw, 5), bits(draw, 5)];
  const wide = bits(draw, 1);
  const sf = wide << 31;
  const one = (high: number): number => bits(draw, 1) << high;
  const pick = (...of: number[]): number => of[draw(of.length)]!;
  let t = a;
  while (t === 1 || t === 2) t = bits(draw, 5);
  let t2 = m;
  while (t2 === 1 || t2 === 2 || t2 === t) t2 = bits(draw, 5);
  const groups: (() => number)[] = [
    () => one(31) | (bits(draw, 2) << 29) | 0x10000000 | (bits(draw, 19) << 5) | d,
    () => sf | (bits(draw, 2) << 29) | 0x11000000 | one(22) | (bits(draw, 12) << 10) | (n << 5) | d,
    () => sf | (bits(draw, 2) << 29) | 0x12000000 | (bits(draw, 13) << 10) | (n << 5) | d,
    () => sf | (bits(draw, 2) << 29) | 0x12800000 | (bits(draw, 18) << 5) | d,
    () => sf | (bits(draw, 2) << 29) | 0x13000000 | (wide << 22) | (bits(draw, 12) << 10) | (n << 5) | d,
    () => sf | 0x13800000 | (wide << 22) | (m << 16) | (bits(draw, 6) << 10) | (n << 5) | d,
    () =>
      sf |
      (bits(draw, 2) << 29) |
      0x0a000000 |
      (bits(draw, 3) << 21) |
      (m << 16) |
      (bits(draw, 6) << 10) |
      (n << 5) |
      d,
    () =>
      sf |
      (bits(draw, 2) << 29) |
      0x0b000000 |
      (bits(draw, 2) << 22) |
      (m << 16) |
      (bits(draw, 6) << 10) |
      (n << 5) |
      d,
    () => sf | (bits(draw, 2) << 29) | 0x0b200000 | (m << 16) | (bits(draw, 3) << 13) | (draw(6) << 10) | (n << 5) | d,
    () => sf | (bits(draw, 2) << 29) | 0x1a000000 | (m << 16) | (n << 5) | d,
    () => sf | one(30) | 0x3a400000 | (m << 16) | (bits(draw, 4) << 12) | one(11) | (n << 5) | bits(draw, 4),
    () => sf | one(30) | 0x1a800000 | (m << 16) | (bits(draw, 4) << 12) | one(10) | (n << 5) | d,
    () => sf | 0x5ac00000 | (bits(draw, 3) << 10) | (n << 5) | d,
    () => sf | 0x1ac00000 | (m << 16) | (pick(2, 3, 8, 9, 10, 11) << 10) | (n << 5) | d,
    () => sf | 0x1b000000 | (pick(0, 0, 1, 2, 5, 6) << 21) | (m << 16) | one(15) | (a << 10) | (n << 5) | d,
    () => (bits(draw, 2) << 30) | 0x39000000 | (bits(draw, 2) << 22) | (bits(draw, 10) << 10) | (1 << 5) | t,
    () =>
      (bits(draw, 2) << 30) |
      0x38000000 |
      (bits(draw, 2) << 22) |
      (bits(draw, 9) << 12) |
      (bits(draw, 2) << 10) |
      (1 << 5) |
      t,
    () =>
      (bits(draw, 2) << 30) |
      0x38200800 |
      (bits(draw, 2) << 22) |
      (2 << 16) |
      (bits(draw, 3) << 13) |
      one(12) |
      (1 << 5) |
      t,
    () =>
      (bits(draw, 2) << 30) | 0x28000000 | (bits(draw, 3) << 22) | (bits(draw, 7) << 15) | (t2 << 10) | (1 << 5) | t,
    () => (bits(draw, 2) << 30) | 0x08808000 | one(22) | (31 << 16) | (31 << 10) | (1 << 5) | t,
    () => (bits(draw, 2) << 30) | 0x18000000 | (draw(1000) << 5) | t,
    () => one(31) | 0x14000000 | bits(draw, 26),
    () => sf | 0x34000000 | one(24) | (bits(draw, 19) << 5) | n,
    () => sf | 0x36000000 | one(24) | (bits(draw, 19) << 5) | n,
    () => 0x54000000 | (bits(draw, 19) << 5) | bits(draw, 4),
    () => 0xd61f0000 | (draw(3) << 21) | (n << 5),
  ];
  return groups[draw(groups.length)]!() >>> 0;
}
