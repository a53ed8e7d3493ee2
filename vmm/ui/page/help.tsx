// What one is looking at, and the keys.

import { useEffect, useRef } from "preact/hooks";
import { KEYS } from "./keys.ts";

export function HelpDialog({ close }: { readonly close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} onClose={close} aria-label="Help">
      <h2>What you are looking at</h2>
      <p>
        A guest owns an IOMMU. Its page tables (stage 1) lie in its own memory, and the host's tables (stage 2) say
        where that memory really is. So the hardware finds each entry of the guest's through the host's: the grid has a
        row for each of the guest's entries and a column for each of the host's.
      </p>
      <p>
        All of it runs in this page: the guest's driver, the VMM, the kernel's iommufd, the IOMMU. Nothing is sent
        anywhere. Choose a cell to take its entry apart, change a bit of it, and the story runs on from there.
      </p>
      <table class="keys">
        <tbody>
          {KEYS.map(([keys, what]) => (
            <tr key={keys}>
              <th scope="row">
                <kbd>{keys}</kbd>
              </th>
              <td>{what}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <form method="dialog">
        <button type="button" class="primary" onClick={() => dialog.current?.close()}>
          close
        </button>
      </form>
    </dialog>
  );
}
