// Before the tests: what they need built, if it is out of date.

import { buildFixtures } from "../guest-fixtures/build.mjs";
import { buildHart } from "../vmm/vcpu/riscv64/build.mjs";

export default async function setup(): Promise<void> {
  await buildFixtures();
  await buildHart();
}
