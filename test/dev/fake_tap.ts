/** A CaptureTap that passes frames to a function. */

import { CAPTURE_RX_ID, type CaptureTap } from '../../src/sys/capture.ts';
import { FrameFacts } from '../../src/sys/capture_facts.ts';

export class FakeTap implements CaptureTap {
  readonly meta = false;
  readonly facts: FrameFacts = new FrameFacts();
  readonly points: number;
  readonly capture: CaptureTap['capture'];
  #ids = CAPTURE_RX_ID;

  constructor(point: number, capture: CaptureTap['capture']) {
    this.points = 1 << point;
    this.capture = (...args) => {
      capture(...args);
      this.facts.clear();
    };
  }

  wants(point: number): boolean {
    return this.points === 1 << point;
  }

  takeTag(): number {
    return 0;
  }

  putTag(): void {}

  noteFrame(): void {}

  rxId(): number {
    return ++this.#ids;
  }

  event(): void {
    this.facts.clear();
  }
}
