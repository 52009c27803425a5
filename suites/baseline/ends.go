package baseline

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/suites/testlab"
)

func ends(e testlab.Env) {
	It("dies with its node", func(ctx SpecContext) {
		r := up(ctx, e, describe(), nil)
		charon := charonOf(r.Node("d1").PID())
		start := startOf(charon)
		Expect(start).NotTo(BeEmpty())
		kill(r.Node("d1").PID())
		Eventually(ctx, func() string { return startOf(charon) }).WithTimeout(testlab.Patience(time.Minute)).ShouldNot(Equal(start))
		Eventually(ctx, r.Err).Should(HaveOccurred())
	}, NodeTimeout(timeout))
}

// charonOf is the process that an agent has started.
func charonOf(agent int) int {
	GinkgoHelper()
	Expect(agent).To(BeNumerically(">", 1))
	entries, err := os.ReadDir("/proc")
	Expect(err).NotTo(HaveOccurred())
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if f := stat(pid); len(f) > 2 && f[1] == strconv.Itoa(agent) {
			return pid
		}
	}
	Fail(fmt.Sprintf("process %d has no child", agent))
	return 0
}

// stat is what the kernel says of a process, from its state on (proc_pid_stat(5), field 3); nothing of one that is gone.
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
}

// startOf tells a process from a later one of its number; empty where it has ended.
func startOf(pid int) string {
	if f := stat(pid); len(f) > 19 && f[0] != "Z" {
		return f[19]
	}
	return ""
}

// kill kills a process of this spec's lab.
func kill(pid int) {
	GinkgoHelper()
	Expect(pid).To(BeNumerically(">", 1))
	Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Succeed())
}
