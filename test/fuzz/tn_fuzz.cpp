// Fuzzes the native build of the NIC `tn`: runs a script of register accesses, memory contents,
// events and frames, on a wire that checks every piece. The device must access only RAM, its own
// memory and the capture ring, send only frames that a wire accepts, and terminate. Linked with the
// device's sources, without Node: with libFuzzer, or with TAPNIC_FUZZ_MAIN as a program that
// replays files.
//
// A script is a byte of modes, followed by steps. A step is a byte that selects the action, and its
// little-endian arguments.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../native-bindings/src/cksum.h"
#include "../../native-bindings/src/tn_device.h"
#include "../../native-bindings/src/tn_wire.h"

namespace {

using tapnic::tn::CAPTURE_IDS;
using tapnic::tn::CAPTURE_IDS_ALL;
using tapnic::tn::Config;
using tapnic::tn::Device;

constexpr uint64_t kRamBase = 0xffff0000;  // both halves of an address are used
constexpr uint32_t kRamBytes = 192 * 1024;
constexpr uint32_t kCaptureBytes = 8192;
constexpr uint32_t kTxRing = 0x2000, kRxRing = 0x4000, kHeaders = 0x6000, kRxData = 0x10000;
// Longest frame: an Ethernet header of the maximum length of its field, an inserted tag, and an IP
// packet.
constexpr uint32_t kFrameMost = 255 + 4 + 65535;
constexpr int kStepsMost = 4096;

uint8_t* ram = nullptr;
uint8_t pristine[kRamBytes];
uint8_t* captureRing = nullptr;
const Device* device = nullptr;
uint8_t sink[128 * 1024];

// The wire's other end.
bool vnet = false, hungUp = false;
uint32_t room = 0;  // frames that it accepts before EAGAIN
uint32_t sentNow = 0, readNow = 0;
uint8_t frame[65536];  // the waiting frame; frameCopies: how often it waits
uint32_t frameLen = 0, frameCopies = 0;
uint32_t train = 0;  // data bytes of a segment that each copy continues; 0: equal copies

[[noreturn]] void Fail(const char* what) {
  fprintf(stderr, "tn_fuzz: %s\n", what);
  abort();
}

bool InRam(const uint8_t* p, size_t len) {
  return p >= ram + 4096 && p <= ram + kRamBytes && len <= static_cast<size_t>(ram + kRamBytes - p);
}

bool InDevice(const uint8_t* p, size_t len) {
  const auto* d = reinterpret_cast<const uint8_t*>(device);
  return p >= d && len <= sizeof(Device) && p + len <= d + sizeof(Device);
}

// Reads the script byte by byte; after its end, zeros.
struct Script {
  const uint8_t* p;
  size_t left;
  uint32_t U8() {
    if (left == 0) return 0;
    left--;
    return *p++;
  }
  uint32_t U16() {
    const uint32_t lo = U8();
    return lo | U8() << 8;
  }
  uint32_t U32() {
    const uint32_t lo = U16();
    return lo | U16() << 16;
  }
};

void Check(uint32_t flags) {
  if (flags > 0x1ff) Fail("unknown flags");
  if (sentNow > tapnic::tn::TN_TX_BUDGET) Fail("more frames than one call may send");
  if (readNow > tapnic::tn::TN_RX_BUDGET * 2) Fail("more reads than two drains may do");
  sentNow = readNow = 0;
}

void Put32(uint32_t off, uint32_t v) { memcpy(ram + off, &v, 4); }

// Sets up both rings with 64 descriptors, posts buffers and enables the engines: the state in which
// most useful scripts begin.
void BringUp(Device* dev, uint32_t ctrl, uint32_t frameMax) {
  using namespace tapnic::tn;
  const uint32_t regs[][2] = {{TN_CTRL, 0},
                              {TN_TDBAL, static_cast<uint32_t>(kRamBase + kTxRing)},
                              {TN_TDBAH, static_cast<uint32_t>((kRamBase + kTxRing) >> 32)},
                              {TN_TDLEN, 1024},
                              {TN_RDBAL, static_cast<uint32_t>(kRamBase + kRxRing)},
                              {TN_RDBAH, static_cast<uint32_t>((kRamBase + kRxRing) >> 32)},
                              {TN_RDLEN, 1024},
                              {TN_MAXFRM, frameMax},
                              {TN_IMS, TN_INT_MASK},
                              {TN_CTRL, ctrl | TN_CTRL_TXE | TN_CTRL_RXE}};
  for (uint32_t i = 0; i < 64; i++) {
    const uint64_t addr = kRamBase + kRxData + i * 2048;
    Put32(kRxRing + i * 16, static_cast<uint32_t>(addr));
    Put32(kRxRing + i * 16 + 4, static_cast<uint32_t>(addr >> 32));
  }
  for (const auto& [reg, value] : regs) Check(dev->Write(reg, value));
  Check(dev->Write(TN_RDT, 63));
}

// Computes the checksums of the segment in `frame`.
void SumSegment() {
  using tapnic::CksumAdd;
  const bool v6 = frame[12] == 0x86;
  uint8_t* ip = frame + 14;
  uint8_t* th = ip + (v6 ? 40 : 20);
  const uint32_t len = frameLen - static_cast<uint32_t>(th - frame);
  if (!v6) {
    tapnic::tn::PutBe16(ip + 10, 0);
    tapnic::tn::PutBe16(ip + 10, ~CksumAdd(ip, 20, 0) & 0xffff);
  }
  tapnic::tn::PutBe16(th + 16, 0);
  const uint32_t addrs = v6 ? CksumAdd(ip + 8, 32, 0) : CksumAdd(ip + 12, 8, 0);
  const uint32_t sum = tapnic::tn::Fold16(addrs + 6 + len + CksumAdd(th, len, 0));
  tapnic::tn::PutBe16(th + 16, ~sum & 0xffff);
}

// Makes the first of a sequence of TCP segments with `len` bytes of data, to the broadcast address.
void MakeSegment(bool v6, bool stamps, uint32_t len) {
  const uint32_t l3 = v6 ? 40 : 20, l4 = stamps ? 32 : 20;
  memset(frame, 0xff, 12);
  memset(frame + 12, 0, 74);
  for (uint32_t i = 0; i < len; i++) frame[14 + l3 + l4 + i] = static_cast<uint8_t>(i * 31 + 7);
  frame[12] = v6 ? 0x86 : 0x08;
  frame[13] = v6 ? 0xdd : 0x00;
  uint8_t* ip = frame + 14;
  ip[0] = v6 ? 0x60 : 0x45;
  tapnic::tn::PutBe16(ip + (v6 ? 4 : 2), (v6 ? 0 : l3) + l4 + len);
  ip[v6 ? 6 : 9] = 6;
  uint8_t* th = ip + l3;
  th[12] = static_cast<uint8_t>(l4 << 2);
  th[13] = 0x10;
  if (stamps) tapnic::tn::PutBe32(th + 20, 0x0101080a);
  frameLen = 14 + l3 + l4 + len;
  train = len;
  SumSegment();
}

// Turns the segment in `frame` into the next one of the sequence.
void NextSegment() {
  uint8_t* seq = frame + 14 + (frame[12] == 0x86 ? 40 : 20) + 4;
  tapnic::tn::PutBe32(seq, tapnic::tn::Be32(seq) + train);
  SumSegment();
}

// The mode bits of a script's byte: bit 0 separates the checksums of the two IP versions.
uint32_t Modes(uint32_t byte) {
  using namespace tapnic::tn;
  const bool v6 = (((byte >> 6) ^ byte) & 1) != 0;
  return (byte & TN_CTRL_MASK) | (v6 ? TN_CTRL_RXCSUM6 : 0);
}

// Makes an IPv6 frame with a chain of extension headers. Types, lengths and the last header are
// arbitrary.
void MakeChain(Script* s) {
  static const uint8_t kTypes[] = {0, 43, 44, 60, 60, 43, 51, 255};
  const uint32_t bits = s->U8(), count = s->U8() % 12;
  memset(frame, 0, 4096);
  memset(frame, 0xff, 12);
  frame[12] = 0x86;
  frame[13] = 0xdd;
  frame[14] = 0x60;
  uint32_t at = 54;
  uint8_t* next = frame + 20;
  for (uint32_t i = 0; i < count; i++) {
    *next = kTypes[s->U8() % 8];
    const uint32_t units = s->U8() % 40;
    frame[at + 1] = static_cast<uint8_t>(units);
    frame[at + 3] = s->U8() % 4 == 0;
    next = frame + at;
    at += 8 * (units + 1);
  }
  *next = (bits & 1) != 0 ? 17 : 6;
  const uint32_t cut = s->U16();
  frameLen = (bits & 2) != 0 ? cut % (at + 40) : at + 20 + cut % 100;
  tapnic::tn::PutBe16(frame + 18, (bits & 4) != 0 ? s->U16() : at - 54 + 20);
  if ((bits & 1) != 0) tapnic::tn::PutBe16(frame + at + 4, 20);
  frame[at + 7] = 1;
  if (vnet) {
    memmove(frame + 12, frame, frameLen);
    for (uint32_t i = 0; i < 12; i++) frame[i] = static_cast<uint8_t>(s->U8());
    frameLen += 12;
  }
  frameCopies = 1 + (bits >> 4);
  train = 0;
}

void Step(Device* dev, Script* s) {
  using namespace tapnic::tn;
  switch (s->U8() % 19) {
    case 0: {
      const uint32_t reg = s->U16() & 0xffc;
      Check(dev->Write(reg, s->U32()));
      break;
    }
    case 1:
      dev->Read(s->U16());
      break;
    case 2: {  // a descriptor of the transmit ring
      const uint32_t slot = s->U8() % 64;
      for (uint32_t i = 0; i < 4; i++) Put32(kTxRing + slot * 16 + 4 * i, s->U32());
      break;
    }
    case 3: {  // a valid data descriptor
      const uint32_t slot = s->U8() % 64;
      const uint64_t addr = kRamBase + 4096 + s->U16() * 3;
      Put32(kTxRing + slot * 16, static_cast<uint32_t>(addr));
      Put32(kTxRing + slot * 16 + 4, static_cast<uint32_t>(addr >> 32));
      Put32(kTxRing + slot * 16 + 8, s->U16() | s->U8() << 16);
      Put32(kTxRing + slot * 16 + 12, s->U8() & ~TN_TXD_CTX);
      break;
    }
    case 4: {  // a receive descriptor
      const uint32_t slot = s->U8() % 64;
      for (uint32_t i = 0; i < 2; i++) Put32(kRxRing + slot * 16 + 4 * i, s->U32());
      break;
    }
    case 5: {  // any bytes of memory
      const uint32_t off = s->U32() % (kRamBytes - 64), n = s->U8() % 64;
      for (uint32_t i = 0; i < n; i++) ram[off + i] = static_cast<uint8_t>(s->U8());
      break;
    }
    case 6:
      Check(dev->Write(TN_TDT, s->U8()));
      break;
    case 7:
      Check(dev->Write(TN_RDT, s->U8()));
      break;
    case 8: {  // frames arrive: bytes of the script, and zeros up to a length
      const uint32_t n = s->U8(), len = s->U16();
      frameCopies = 1 + s->U8() % 200;
      frameLen = len > n ? len : n;
      train = 0;
      memset(frame, 0, frameLen);
      for (uint32_t i = 0; i < n; i++) frame[i] = static_cast<uint8_t>(s->U8());
      Check(dev->OnEvent(TN_EV_READABLE));
      break;
    }
    case 9:
      room = s->U8();
      Check(dev->OnEvent(s->U8() % TN_EV_COUNT));
      break;
    case 10: {
      dev->nowNs += s->U32();
      hungUp = s->U8() == 0xff;
      break;
    }
    case 12: {  // consistent headers, for descriptors to point at
      const bool v6 = s->U8() % 2 != 0;
      uint8_t* p = ram + kHeaders;
      memset(p, 0, 128);
      p[12] = v6 ? 0x86 : 0x08;
      p[13] = v6 ? 0xdd : 0x00;
      p[14] = v6 ? 0x60 : 0x45;
      p[14 + (v6 ? 6 : 9)] = s->U8() % 2 != 0 ? 6 : 17;
      p[14 + (v6 ? 40 : 20) + 12] = 0x50;
      break;
    }
    case 13: {  // the host reads the capture records, or overwrites the ring's head
      const uint32_t word = s->U8(), value = s->U32();
      if (word < 8)
        memcpy(captureRing + 4 * word, &value, 4);
      else
        memcpy(captureRing + 4, captureRing, 4);
      break;
    }
    case 14: {  // consecutive TCP segments arrive; one byte of their headers is arbitrary
      const uint32_t bits = s->U8(), len = 1 + s->U16() % 9000, copies = s->U8();
      const uint32_t poke = s->U8(), value = s->U8();
      MakeSegment((bits & 1) != 0, (bits & 2) != 0, len);
      if (poke < 86) frame[poke] = static_cast<uint8_t>(value);
      frameCopies = 1 + copies % 200;
      Check(dev->OnEvent(TN_EV_READABLE));
      break;
    }
    case 15: {  // the driver stops and starts the engines while frames are in flight
      const uint32_t ctrl = s->U8();
      Check(dev->Write(TN_CTRL, ctrl & TN_CTRL_MASK & ~(TN_CTRL_TXE | TN_CTRL_RXE)));
      Check(dev->OnEvent(TN_EV_READABLE));
      Check(dev->OnEvent(s->U8() % TN_EV_COUNT));
      if ((ctrl & 1) == 0) Check(dev->Write(TN_CTRL, Modes(ctrl) | TN_CTRL_TXE | TN_CTRL_RXE));
      break;
    }
    case 16: {  // a reset, with an event before the driver sets it up again
      Check(dev->Write(TN_CTRL, TN_CTRL_RST));
      Check(dev->OnEvent(s->U8() % TN_EV_COUNT));
      break;
    }
    case 17: {  // every register is read, as ifconfig and netstat do
      for (uint32_t reg = 0; reg < 0x400; reg += 4) dev->Read(reg);
      dev->Read(s->U32());
      break;
    }
    case 11: {
      const uint32_t ctrl = s->U8();
      BringUp(dev, Modes(ctrl), s->U16());
      break;
    }
    case 18:
      MakeChain(s);
      Check(dev->OnEvent(TN_EV_READABLE));
      break;
  }
}

}  // namespace

namespace tapnic::tn {

long WireWritev(int, const iovec* iov, int iovcnt) {
  if (iovcnt < 1 || iovcnt > static_cast<int>(TN_TX_SEGS + 3)) Fail("pieces of a frame");
  size_t total = 0;
  for (int i = 0; i < iovcnt; i++) {
    const auto* p = static_cast<const uint8_t*>(iov[i].iov_base);
    const size_t len = iov[i].iov_len;
    if (len == 0 || (!InRam(p, len) && !InDevice(p, len))) Fail("a frame from somewhere else");
    if (total + len > sizeof sink) Fail("a frame without end");
    memcpy(sink + total, p, len);
    total += len;
  }
  if (vnet ? total < VNET_HDR_LEN + ETHER_HDR_LEN || total > VNET_HDR_LEN + kFrameMost
           : total < TN_FRAME_MIN || total > TN_FRAME_MAX)
    Fail("a frame that no wire takes");
  if (hungUp) return -EIO;
  if (room == 0) return -EAGAIN;
  room--;
  sentNow++;
  return static_cast<long>(total);
}

long WireReadv(int, const iovec* iov, int iovcnt) {
  readNow++;
  size_t space = 0;
  for (int i = 0; i < iovcnt; i++) {
    const auto* p = static_cast<const uint8_t*>(iov[i].iov_base);
    if (!InRam(p, iov[i].iov_len) && !(vnet && i == 0 && InDevice(p, iov[i].iov_len)))
      Fail("a buffer somewhere else");
    space += iov[i].iov_len;
  }
  if (hungUp) return -EIO;
  if (frameCopies == 0 || frameLen == 0) return -EAGAIN;
  frameCopies--;
  const size_t n = frameLen < space ? frameLen : space;
  size_t at = 0;
  for (int i = 0; i < iovcnt && at < n; i++) {
    const size_t c = iov[i].iov_len < n - at ? iov[i].iov_len : n - at;
    memcpy(iov[i].iov_base, frame + at, c);
    at += c;
  }
  if (train != 0) NextSegment();
  return static_cast<long>(n);
}

}  // namespace tapnic::tn

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (ram == nullptr) {
    ram = static_cast<uint8_t*>(aligned_alloc(4096, kRamBytes));
    captureRing = static_cast<uint8_t*>(malloc(kCaptureBytes + CAPTURE_IDS_ALL));
    for (uint32_t i = 0; i < kRamBytes; i++)
      pristine[i] = static_cast<uint8_t>(i * 167 + (i >> 12));
  }
  memcpy(ram, pristine, kRamBytes);
  memset(captureRing, 0, kCaptureBytes + CAPTURE_IDS_ALL);
  memset(captureRing + CAPTURE_IDS, 0xff, 4);
  Script s{data, size};
  const uint32_t modes = s.U8();
  vnet = (modes & 1) != 0;
  hungUp = false;
  room = 100;
  frameCopies = 0;
  train = 0;
  // Capture at `wire`, or at `ring` and `wire` with metadata; 1024 bytes of each frame.
  captureRing[12] = (modes & 4) == 0 ? 0 : (modes & 0x40) != 0 ? 3 << 3 : 1 << 4;
  captureRing[16 + 4 * 3 + 1] = captureRing[16 + 4 * 4 + 1] = 0x04;
  captureRing[56] = (modes & 0x40) != 0 ? 1 : 0;

  Config config = {};
  config.fd = 0;
  config.vnet = vnet;
  config.hasTimer = (modes & 2) != 0;
  config.mac[0] = 2;
  config.mem = ram;
  config.ramBase = kRamBase;
  config.ramBytes = kRamBytes;
  config.capture = captureRing;
  config.captureBytes = kCaptureBytes;
  // Records get the script's time, or that of the monotonic clock.
  config.ownTime = (modes & 8) == 0;
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  config.monotonicBias = ts.tv_sec * int64_t{1000000000} + ts.tv_nsec;
  auto* dev = new Device(config);
  device = dev;
  for (int i = 0; s.left > 0 && i < kStepsMost; i++) Step(dev, &s);
  delete dev;
  return 0;
}

#ifdef TAPNIC_FUZZ_MAIN
int main(int argc, char** argv) {
  static uint8_t data[1 << 20];
  for (int i = 1; i < argc; i++) {
    FILE* f = fopen(argv[i], "rb");
    if (f == nullptr) {
      perror(argv[i]);
      return 1;
    }
    const size_t n = fread(data, 1, sizeof data, f);
    fclose(f);
    // Copy it to a buffer of its exact size, so that ASan finds a read after its end.
    auto* copy = static_cast<uint8_t*>(malloc(n > 0 ? n : 1));
    memcpy(copy, data, n);
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
  }
  printf("tn_fuzz: %d scripts replayed\n", argc - 1);
  return 0;
}
#endif
