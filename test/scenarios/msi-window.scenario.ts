// A device's MSI is a DMA write: it goes through the guest's first stage. With the host's window mapped one to one it arrives; without, the
// interrupt is lost and the guest hears of a page that is not mapped; but where the host's messages pass by (VT-d) it needs no window.

import { MSI_WINDOW, scenario } from "nestbox";

const MSI_PAGE = 0x2800_0000n;

export default scenario.each(
  "a device's MSI with and without the host's window in stage 1",
  { sweep: [true, false] },
  (t, kind) => {
    const vm = t.vm({ kind, assign: ["0000:00:01.0@00:02.0"] });
    const device = vm.device("00:02.0");
    const stage1 = vm.stage1(undefined, { msiWindow: t.value === true });
    const page = vm.ram.allocate();
    stage1.map(0x1000n, page, 4096n);
    stage1.map(MSI_PAGE, MSI_PAGE, 4096n); // the guest's own message address
    device.installContext(stage1);
    device.enableMsi(MSI_PAGE, 33);
    device.edu.start({ iova: 0x1000n, length: 64, direction: "to-ram", interrupt: true });
    t.advance(10_000);

    const taken = vm.takeInterrupts();
    if (t.value === true || vm.messagesPassBy) {
      t.expect(taken.includes(33), "the guest takes message 33");
      vm.expectNoFault();
    } else {
      t.expect(!taken.includes(33), "the message is lost");
      vm.expectFault({ what: "not mapped", device, iova: MSI_WINDOW.base, write: true });
    }
  },
);
