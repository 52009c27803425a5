package hygiene

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/internal/hygiene"
	"pqlab/internal/inherit"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

// user is who runs pqlab.
type user struct {
	text string
	uid  uint32 // 0: the one who runs the specs
}

// users are those that specs run as. The number of the second has no name and no processes.
func users() []user {
	return []user{{"this user", 0}, {"an ordinary user", 54321}}
}

// need skips a spec that cannot run the binary as the user.
func (u user) need(binary string) {
	if u.uid == 0 {
		return
	}
	if os.Geteuid() != 0 {
		Skip("only root can run a program as another user")
	}
	try := exec.Command(binary, "--version")
	try.SysProcAttr, try.Dir = u.attr(), "/"
	if err := try.Run(); err != nil {
		Skip(fmt.Sprintf("user %d cannot run %s here: %v", u.uid, binary, err))
	}
}

func (u user) attr() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if u.uid != 0 {
		a.Credential = &syscall.Credential{Uid: u.uid, Gid: u.uid}
	}
	return a
}

// program runs pqlab.
type program struct {
	binary string
	user   user
	before hygiene.Snapshot
	owner  hygiene.Owner // of what the program starts

	// journals are in a directory of the program's own: any other pqlab on the machine would repair what it finds in the
	// usual one, and so hide what this one leaves.
	journals string
}

// newProgram notes how the machine is now.
func newProgram(e testlab.Env, u user) program {
	GinkgoHelper()
	Expect(e.Binary).NotTo(BeEmpty(), "the specs are not told where pqlab is")
	u.need(e.Binary)
	// What this process was given is none of pqlab's business, which passes such descriptors on.
	given, err := inherit.Descriptors()
	Expect(err).NotTo(HaveOccurred())
	for _, fd := range given {
		syscall.CloseOnExec(fd)
	}
	before, err := hygiene.Take()
	Expect(err).NotTo(HaveOccurred())
	return program{e.Binary, u, before, hygiene.NewOwner(), directory()}
}

// process is pqlab, started.
type process struct {
	*exec.Cmd
	out, err *bytes.Buffer
	ended    chan struct{}
}

// start starts pqlab in a process group of its own. What is left of it when the spec ends is killed.
func (p program) start(args ...string) *process {
	GinkgoHelper()
	return p.launch(exec.Command(p.binary, args...))
}

// owned makes cmd run as the user, and what it starts known by its owner.
func (p program) owned(cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir, cmd.SysProcAttr = "/", p.user.attr()
	cmd.Env = append(os.Environ(), p.owner.Env(), "XDG_RUNTIME_DIR="+p.journals)
	return cmd
}

func (p program) launch(cmd *exec.Cmd) *process {
	GinkgoHelper()
	r := &process{Cmd: p.owned(cmd), out: &bytes.Buffer{}, err: &bytes.Buffer{}, ended: make(chan struct{})}
	r.Stdout, r.Stderr = r.out, r.err
	r.WaitDelay = time.Minute // for somebody else who holds its output
	Expect(r.Start()).To(Succeed())
	go func() {
		r.Wait()
		close(r.ended)
	}()
	DeferCleanup(func() { r.kill(syscall.SIGKILL); <-r.ended })
	return r
}

// kill signals the process; one that has ended gets nothing.
func (r *process) kill(sig syscall.Signal) {
	r.Process.Signal(sig) // os.Process knows whether it has been waited for
}

// killGroup signals the group that the process leads. The process must not have been waited for.
func (r *process) killGroup(sig syscall.Signal) error {
	Expect(r.Process.Pid).To(BeNumerically(">", 1))
	return syscall.Kill(-r.Process.Pid, sig)
}

// run runs pqlab to its end.
func (p program) run(args ...string) *process {
	GinkgoHelper()
	r := p.start(args...)
	Eventually(r.ended, testlab.Patience(2*time.Minute)).Should(BeClosed(), strings.Join(args, " "))
	return r
}

// succeed is run for what must work.
func (p program) succeed(args ...string) string {
	GinkgoHelper()
	r := p.run(args...)
	Expect(r.ProcessState.ExitCode()).To(BeZero(), "%s: %s%s", strings.Join(args, " "), r.out, r.err)
	return r.out.String()
}

// settled waits until nothing is left of all that was started, and tells how long that took.
func (p program) settled(ctx SpecContext) time.Duration {
	GinkgoHelper()
	began := time.Now()
	left, err := hygiene.Settled(within(ctx, cleanTime), p.before, p.owner)
	Expect(err).NotTo(HaveOccurred())
	Expect(left).To(BeEmpty(), "left behind")
	Eventually(os.ReadDir, testlab.Patience(cleanTime)).WithArguments(p.journals).Should(BeEmpty(), "left behind")
	return time.Since(began)
}

// seen tells what is there now.
func (p program) seen(ctx SpecContext) []string {
	GinkgoHelper()
	found, err := hygiene.Settled(within(ctx, 0), p.before, p.owner)
	Expect(err).NotTo(HaveOccurred())
	return found
}

// status is what pqlab ps --json LAB prints.
type status struct {
	PID   int
	Nodes []struct{ PID int }
}

func (p program) status(lab string) status {
	GinkgoHelper()
	var s status
	Expect(json.Unmarshal([]byte(p.succeed("ps", "--json", lab)), &s)).To(Succeed())
	return s
}

// labName is one that nobody else's lab has.
func labName() string { return "hygiene-" + strconv.Itoa(os.Getpid()) }

// file writes a topology that any user can read.
func file(b *topology.Builder) string {
	GinkgoHelper()
	t, err := b.Topology()
	Expect(err).NotTo(HaveOccurred())
	text, err := t.Marshal()
	Expect(err).NotTo(HaveOccurred())
	path := filepath.Join(directory(), t.Name+".yaml")
	Expect(os.WriteFile(path, text, 0o644)).To(Succeed())
	return path
}

// directory is one that any user can write to, for one spec.
func directory() string {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "hygiene-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(os.RemoveAll(dir)).To(Succeed()) })
	Expect(os.Chmod(dir, 0o777)).To(Succeed())
	return dir
}
