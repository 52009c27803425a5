package hygiene

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/internal/vm/guest"
	"pqlab/suites/testlab"
)

// runArgs make a run of a lab that has one of everything.
func runArgs(duration string) []string { return []string{"run", file(small()), "--duration", duration} }

// killed are runs that are ended at random moments. Nothing starts pqlab again before the look.
func killed(e testlab.Env, u user) {
	var whole time.Duration // how long an undisturbed run takes
	// at ends runs at n random moments and calls check after each.
	at := func(ctx SpecContext, p program, n int, end func(*process), check func(*process)) {
		GinkgoHelper()
		args := runArgs("200ms")
		if whole == 0 {
			began := time.Now()
			p.succeed(args...)
			whole = time.Since(began)
			p.settled(ctx)
		}
		long := whole
		var slowest time.Duration
		once := func(part float64) (early bool) {
			GinkgoHelper()
			moment := time.Duration(part * float64(long))
			began := time.Now()
			r := p.start(args...)
			select {
			case <-r.ended:
				early = part < 1
				long = min(long, time.Since(began)) // those before met a busier machine
			case <-time.After(moment):
				end(r)
			}
			Eventually(r.ended, testlab.Patience(cleanTime)).Should(BeClosed())
			By(fmt.Sprintf("ended after %v of %v: %v", moment, long, r.ProcessState))
			check(r)
			slowest = max(slowest, p.settled(ctx))
			return early
		}
		for _, part := range moments(n) {
			tries := 1
			for once(part) && tries < 4 { // it had ended before
				tries++
			}
		}
		AddReportEntry("nothing left", fmt.Sprintf("of %d runs of %v ended at random moments (seed %d), after %v at most", n, long, GinkgoRandomSeed(), slowest))
	}
	struck := func(sig syscall.Signal, check func(*process)) (func(*process), func()) {
		n := 0
		return func(r *process) {
				if state, ok := r.ProcessState.Sys().(syscall.WaitStatus); ok && state.Signaled() && state.Signal() == sig {
					n++
				}
				check(r)
			}, func() {
				GinkgoHelper()
				Expect(n).To(BeNumerically(">", 0), "every run had ended before it was killed")
			}
	}
	nothing := func(*process) {}

	It("is seen while a run has a lab, and after SIGKILL nothing of it is", func(ctx SpecContext) {
		p := newProgram(e, u)
		r := p.start(runArgs("1m")...)
		// Each of the four agents is a process, each of the five nodes a namespace; and there is pqlab, and what this spec has.
		Eventually(func() int { return len(p.seen(ctx)) }, testlab.Patience(2*time.Minute)).Should(BeNumerically(">=", 14), "%s", r.err)
		r.kill(syscall.SIGKILL)
		<-r.ended
		p.settled(ctx)
	})

	It("leaves nothing after SIGKILL of a run", func(ctx SpecContext) {
		p := newProgram(e, u)
		check, any := struck(syscall.SIGKILL, nothing)
		at(ctx, p, kills(), func(r *process) { r.kill(syscall.SIGKILL) }, check)
		any()
	}, NodeTimeout(long))

	It("leaves nothing after SIGKILL of the whole process group of a run", func(ctx SpecContext) {
		p := newProgram(e, u)
		check, any := struck(syscall.SIGKILL, nothing)
		at(ctx, p, fewer(kills()), func(r *process) { r.killGroup(syscall.SIGKILL) }, check)
		any()
	}, NodeTimeout(long))

	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, group := range []bool{false, true} {
			if guest.Emulated() && group != (sig == syscall.SIGINT) {
				continue // as a terminal sends the one, and a supervisor of services the other; all four without a guest
			}
			whom := map[bool]string{false: "a run", true: "the whole process group of a run, as a terminal does"}[group]
			It(fmt.Sprintf("takes the lab down after %v of %s, and says so", sig, whom), func(ctx SpecContext) {
				p := newProgram(e, u)
				interrupted := 0
				at(ctx, p, fewer(kills()), func(r *process) {
					if group {
						r.killGroup(sig)
					} else {
						r.kill(sig)
					}
				}, func(r *process) {
					state := r.ProcessState.Sys().(syscall.WaitStatus)
					switch {
					case state.Signaled():
						Expect(state.Signal()).To(Equal(sig), "it came before pqlab listened")
						Expect(r.err.String()).To(BeEmpty())
					case state.ExitStatus() == 0:
					default:
						Expect(state.ExitStatus()).To(Equal(130), "%s", r.err)
						Expect(r.err.String()).To(ContainSubstring("taken down"))
						Expect(r.out.String()).To(BeEmpty())
						interrupted++
					}
				})
				Expect(interrupted).To(BeNumerically(">", 0))
			}, NodeTimeout(long))
		}
	}
}

// long is how long a spec may take that raises its number of moments.
const long = time.Hour

// held are labs that stay: pqlab up.
func held(e testlab.Env, u user) {
	up := func(p program) string {
		GinkgoHelper()
		name := labName()
		p.succeed("up", file(small()), "--name", name)
		DeferCleanup(func() { p.owned(exec.Command(p.binary, "down", name)).Run() }) // where the spec has failed
		return name
	}

	It("leaves nothing after up, ps, exec and down", func(ctx SpecContext) {
		p := newProgram(e, u)
		lab := up(p)
		s := p.status(lab)
		Expect(s.Nodes).To(HaveLen(5))
		Expect(p.seen(ctx)).NotTo(BeEmpty())
		echo := exec.Command(p.binary, "exec", lab, "h1", "--", "cat")
		echo.Stdin = strings.NewReader("words\n")
		r := p.launch(echo)
		Eventually(r.ended, testlab.Patience(2*time.Minute)).Should(BeClosed())
		Expect(r.ProcessState.ExitCode()).To(BeZero())
		Expect(r.out.String()).To(Equal("words\n"))
		Expect(p.run("exec", lab, "h1", "--", "sh", "-c", "exit 7").ProcessState.ExitCode()).To(Equal(7))
		Expect(p.run("exec", lab, "nobody", "--", "true").ProcessState.ExitCode()).To(Equal(2))
		p.succeed("exec", lab, "h2", "--", "sh", "-c", "("+stubborn+") </dev/null >/dev/null 2>&1 & exit 0")
		p.succeed("down", lab)
		p.settled(ctx)
		Expect(p.run("ps", lab).ProcessState.ExitCode()).To(Equal(2), "it is still listed")
	})

	It("leaves nothing after SIGKILL of what holds a lab", func(ctx SpecContext) {
		p := newProgram(e, u)
		lab := up(p)
		words := filepath.Join(directory(), "words")
		client := p.start("exec", lab, "d2", "--", "sh", "-c", "exec >"+words+"; "+stubborn)
		Eventually(os.ReadFile, testlab.Patience(time.Minute)).WithArguments(words).ShouldNot(BeEmpty(), "%s", client.err)
		pid := p.status(lab).PID
		Expect(pid).To(BeNumerically(">", 1))
		Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Succeed())
		Eventually(client.ended, testlab.Patience(cleanTime)).Should(BeClosed())
		Expect(client.ProcessState.ExitCode()).To(Equal(125))
		p.settled(ctx)
	})

	It("leaves nothing after SIGKILL of up at a random moment", func(ctx SpecContext) {
		p := newProgram(e, u)
		name, topology := labName(), file(small())
		began := time.Now()
		p.succeed("up", topology, "--name", name)
		took := time.Since(began)
		p.succeed("down", name)
		for _, part := range moments(fewer(kills())) {
			moment := time.Duration(part * float64(took))
			r := p.start("up", topology, "--name", name)
			select {
			case <-r.ended:
			case <-time.After(moment):
				r.kill(syscall.SIGKILL)
			}
			Eventually(r.ended, testlab.Patience(cleanTime)).Should(BeClosed())
			By(fmt.Sprintf("ended after %v of %v: %v", moment, took, r.ProcessState))
			// A lab that was ready stays, whatever became of the command that had it made.
			Eventually(func() int {
				if p.run("ps", "--json", name).ProcessState.ExitCode() == 0 {
					return p.run("down", name).ProcessState.ExitCode()
				}
				return 0
			}, testlab.Patience(cleanTime)).Should(BeZero())
			p.settled(ctx)
		}
	}, NodeTimeout(long))
}

// starved are runs that run out of descriptors, at one stage after the other.
func starved(e testlab.Env, u user) {
	It("leaves nothing and says why when descriptors run out", func(ctx SpecContext) {
		p := newProgram(e, u)
		topology := file(small())
		failed, done := 0, false
		finer := 10
		if guest.Emulated() {
			finer = 4
		}
		for n := 8; n < 256 && !done; n += 1 + n/finer {
			r := p.launch(exec.Command("/bin/sh", "-c", `ulimit -n "$1"; shift; exec "$@"`, "sh",
				fmt.Sprint(n), p.binary, "run", topology, "--duration", "10ms"))
			Eventually(r.ended, testlab.Patience(2*time.Minute)).Should(BeClosed())
			By(fmt.Sprintf("%d descriptors: %v: %s", n, r.ProcessState, r.err))
			done = r.ProcessState.Success()
			if !done {
				failed++
				Expect(r.err.String()).NotTo(BeEmpty(), "%d descriptors", n)
				Expect(r.err.String()).NotTo(ContainSubstring("goroutine "), "%d descriptors", n)
				Expect(r.ProcessState.ExitCode()).To(Or(Equal(1), Equal(3)), "%d descriptors: %s", n, r.err)
			}
			p.settled(ctx)
		}
		Expect(failed).To(BeNumerically(">", 3))
		Expect(done).To(BeTrue())
	})
}
