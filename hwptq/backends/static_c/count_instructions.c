/* A plug-in of QEMU 7 that counts the instructions a program executes, function by function.

     qemu-aarch64 -plugin ./count_instructions.so,out=FILE program ...

   writes a line "<instructions> <function>" for each function of the main program; what lies elsewhere, as in
   shared libraries, counts for "?". Counts are exact for programs of one thread.

   The declarations are those of version 1 of QEMU's plug-in interface, as far as they are used: Debian ships
   no header for it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *, uint64_t);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);

#define EXPORT __attribute__((visibility("default")))
enum { ADD_U64 = 0 };

struct function {
    uint64_t executed;
    char *name;
    struct function *next;
};

EXPORT int qemu_plugin_version = 1;
static struct function *functions;
static FILE *out;

static struct function *function(const char *name) {
    for (struct function *f = functions; f; f = f->next)
        if (!strcmp(f->name, name)) return f;
    struct function *f = calloc(1, sizeof *f);
    f->name = strdup(name);
    f->next = functions;
    return functions = f;
}

/* A translated block is one stretch of code without a branch inside, so it belongs to one function. */
static void translated(plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    const char *name = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(block, 0));
    struct function *f = function(name && *name ? name : "?");
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &f->executed, qemu_plugin_tb_n_insns(block));
}

static void finished(plugin_id id, void *data) {
    (void)id, (void)data;
    for (struct function *f = functions; f; f = f->next)
        fprintf(out, "%llu %s\n", (unsigned long long)f->executed, f->name);
    fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int count, char **arguments) {
    (void)info;
    if (count != 1 || strncmp(arguments[0], "out=", 4) || !(out = fopen(arguments[0] + 4, "w"))) {
        fprintf(stderr, "count_instructions: give out=FILE, a file that can be written\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
