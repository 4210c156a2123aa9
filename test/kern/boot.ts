/** A booted machine for the kernel's tests: test/support/machine.ts plus a disk and the sysctls. */

import { expect } from 'chai';
import type { ManualClock } from '../../src/host/manual_clock.ts';
import { fileStats } from '../../src/kern/kern_descrip.ts';
import { ipcSysctlInit } from '../../src/kern/kern_ipc_sysctl.ts';
import { mbParams } from '../../src/kern/kern_mbuf.ts';
import { sendfileLive, sfstatReset } from '../../src/kern/sendfile_io.ts';
import { sbParams } from '../../src/kern/uipc_sockbuf.ts';
import { soStats } from '../../src/kern/uipc_socket.ts';
import type { Pager } from '../../src/sys/pager.ts';
import { sfBufInit } from '../../src/vm/sf_buf.ts';
import { vmObjectCount, vmObjectInit, vmObjectsFlush } from '../../src/vm/vm_object.ts';
import { vmPageCounts } from '../../src/vm/vm_page.ts';
import { bootMachine, expectMachineClean, type InUse } from '../support/machine.ts';

/** Boots a machine of 32 MiB with known settings and no disk; `bootDisk` adds the disk. */
export function bootKern(nsfbufs = 4096): ManualClock {
  const clock = bootMachine();
  sfBufInit(nsfbufs);
  sfstatReset();
  ipcSysctlInit();
  mbParams.mb_use_ext_pgs = true;
  sbParams.sb_max = 2 * 1024 * 1024;
  sbParams.sb_efficiency = 8;
  soStats.current = 0;
  fileStats.current = 0;
  sendfileLive.calls = 0;
  sendfileLive.ios = 0;
  return clock;
}

/** Attaches the disk `pager` to the machine and returns it. */
export function bootDisk<T extends Pager>(pager: T): T {
  vmObjectInit(pager);
  return pager;
}

/**
 * Fails unless every resource in use has returned to `before`. The page cache may hold pages until
 * it is flushed.
 */
export function expectAllBack(before: InUse = {}): void {
  expect(sendfileLive, 'sendfile').to.deep.equal({ calls: 0, ios: 0 });
  expect(soStats.current, 'sockets').to.equal(0);
  expect(fileStats.current, 'files').to.equal(0);
  expectMachineClean(before);
  vmObjectsFlush();
  expect(vmPageCounts().cached, 'cached pages after a flush').to.equal(0);
  expect(vmObjectCount(), 'vm objects after a flush').to.equal(0);
}

/** Boots a machine before each test and, after a test that passed, checks that nothing leaked. */
export function bootEach(): void {
  beforeEach(() => {
    bootKern();
  });
  afterEach(function () {
    if (this.currentTest?.state === 'passed') expectAllBack();
  });
}
