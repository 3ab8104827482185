/* accepted.h - for tests of generated texts: does the program that will read one accept it?
 * Include behind cmocka.h. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Run @argv with @text in a temporary file as its last word; no output and status 0 is good. */
static inline void accepted_by(const char *const *argv, const char *text)
{
        char path[] = "/tmp/test_generated-XXXXXX", out[4096];
        const char *full[8] = { 0 };
        int fd = mkstemp(path), pipefd[2], status;
        ssize_t n;
        size_t i = 0;
        pid_t pid;

        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        (void) close(fd);
        for (; argv[i]; i++)
                full[i] = argv[i];
        full[i] = path;
        assert_int_equal(pipe(pipefd), 0);
        pid = fork();
        if (pid == 0) {
                (void) dup2(pipefd[1], 1);
                (void) dup2(pipefd[1], 2);
                (void) close(pipefd[0]);
                (void) close(pipefd[1]);
                (void) execvp(full[0], (char *const *) (uintptr_t) full);
                _exit(127);
        }
        (void) close(pipefd[1]);
        n = read(pipefd[0], out, sizeof out - 1);
        (void) close(pipefd[0]);
        assert_true(waitpid(pid, &status, 0) == pid);
        (void) unlink(path);
        if (status != 0 || n > 0)
                fail_msg("%s: status %d: %.*s", argv[0], status, (int) (n > 0 ? n : 0), out);
}
