/*
 * Runs BPF programs with libpcap's interpreter. Input, in host byte order: for each case the numbers
 * of instructions, wire bytes and captured bytes and 1 to run it (u32), the instructions (u16 code, u8 jt, u8 jf,
 * u32 k), the captured bytes. Output: for each case what bpf_validate and bpf_filter return (u32);
 * the second is 0 if it did not run. Exit status 3: no libpcap.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct insn {
  uint16_t code;
  uint8_t jt, jf;
  uint32_t k;
};

int main(void) {
  void *lib = dlopen("libpcap.so.0.8", RTLD_NOW);
  if (lib == NULL) lib = dlopen("libpcap.so.1", RTLD_NOW);
  if (lib == NULL) return 3;
  int (*validate)(const struct insn *, int) = dlsym(lib, "bpf_validate");
  unsigned (*filter)(const struct insn *, const uint8_t *, unsigned, unsigned) =
      dlsym(lib, "bpf_filter");
  if (validate == NULL || filter == NULL) return 3;
  uint32_t head[4];
  while (fread(head, 4, 4, stdin) == 4) {
    struct insn *prog = calloc(head[0] + 1, sizeof *prog);
    /* Exactly as large as the packet, for a checker of memory. */
    uint8_t *packet = malloc(head[2]);
    if (prog == NULL || packet == NULL) return 1;
    if (fread(prog, sizeof *prog, head[0], stdin) != head[0]) return 2;
    if (fread(packet, 1, head[2], stdin) != head[2]) return 2;
    uint32_t out[2] = {0, 0};
    out[0] = validate(prog, (int)head[0]) != 0;
    if (out[0] && head[3]) out[1] = filter(prog, packet, head[1], head[2]);
    fwrite(out, 4, 2, stdout);
    free(prog);
    free(packet);
  }
  return 0;
}
