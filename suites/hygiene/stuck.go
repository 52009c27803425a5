package hygiene

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/probe"
	"pqlab/suites/testlab"
)

// stuck is a lab of which something cannot be removed: a cgroup in which somebody has made another.
func stuck(e testlab.Env) {
	It("goes on, reports all of it, and the next run removes the rest", func(ctx SpecContext) {
		p := newProgram(e, users()[0])
		captures := directory()
		r := p.start(append(runArgs("1m"), "--capture", captures)...)
		// They begin when the lab is up. Before it is made, their directory is tried with another file.
		Eventually(filepath.Glob, testlab.Patience(2*time.Minute)).WithArguments(filepath.Join(captures, "*.pcapng")).ShouldNot(BeEmpty(), "%s", r.err)
		groups := cgroupsOf(strconv.Itoa(r.Process.Pid))
		if len(groups) == 0 {
			missing := probe.CPULimits()
			Expect(missing).To(MatchError(errors.ErrUnsupported), "a lab without cgroups where they can be made: %s", r.err)
			Skip(fmt.Sprintf("%v; and nothing else outlives a lab", missing))
		}
		var inside []string
		for _, g := range groups {
			if strings.HasSuffix(g, "-d1") || strings.HasSuffix(g, "-h1") {
				inside = append(inside, filepath.Join(g, "inside"))
			}
		}
		for _, dir := range inside {
			Expect(os.Mkdir(dir, 0o755)).To(Succeed())
			DeferCleanup(func() { syscall.Rmdir(dir) })
		}
		r.kill(syscall.SIGINT)
		Eventually(r.ended, testlab.Patience(2*time.Minute)).Should(BeClosed())
		Expect(r.ProcessState.ExitCode()).To(Equal(1))
		for _, dir := range inside {
			Expect(r.err.String()).To(ContainSubstring(filepath.Dir(dir)))
		}
		for _, g := range groups {
			_, err := os.Stat(g)
			if strings.HasSuffix(g, "-d2") {
				Expect(err).To(MatchError(os.ErrNotExist), "it stopped at the first error")
			} else {
				Expect(err).NotTo(HaveOccurred())
			}
		}
		for _, dir := range inside {
			Expect(syscall.Rmdir(dir)).To(Succeed())
		}
		p.succeed("run", "pair", "--duration", testlab.Patience(10*time.Millisecond).String())
		p.settled(ctx)
	})
}

// cgroupsOf finds the cgroups that the process has made: their names begin with its number.
func cgroupsOf(pid string) []string {
	var found []string
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return nil // it has been removed, or is somebody else's
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), "pqlab-"+pid+"-") {
			found = append(found, path)
			return filepath.SkipDir
		}
		return nil
	})
	return found
}
