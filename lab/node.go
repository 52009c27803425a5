package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"pqlab/agent"
	"pqlab/internal/netns"
	"pqlab/nodes"
	"pqlab/topology"
)

// stopTimeout is how long an agent may take to remove its tunnels before it is killed.
const stopTimeout = 3 * time.Second

// Node is a machine of the lab.
type Node struct {
	Plan topology.PlannedNode

	lab     *Lab
	ns      *netns.Namespace
	cgroup  *nodes.Cgroup  // nil without a profile, or where the machine has none
	process *nodes.Process // the agent; nil without services
	agent   *agent.Client
	hello   agent.Greeting
}

// Namespace is the node's network. The lab owns it.
func (n *Node) Namespace() *netns.Namespace { return n.ns }

// Agent speaks to the node's agent; nil if the plan gives the node no services.
func (n *Node) Agent() *agent.Client { return n.agent }

// startAgent runs an agent in the node and waits until it serves.
func (n *Node) startAgent(ctx context.Context, l *Lab) error {
	client, socket, err := agent.Connect(n.Plan.Name)
	if err != nil {
		return err
	}
	defer socket.Close()
	stderr, log, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Plan.Name, err)
	}
	defer log.Close()
	process, err := nodes.Start(n.ns, n.cgroup, nodes.Command{
		Path: "/proc/self/exe",
		Args: agent.Config{
			Node: n.Plan.Name, ManualClock: l.options.ManualClock, Reveal: l.options.Reveal, Seq: l.options.Seq, Port: l.options.Port,
			Certificate: n.Plan.Certificate, Dataplane: l.planes[n.Plan.Name].Name, Strongswan: l.strongswan[n.Plan.Name],
		}.Args(),
		Files: []*os.File{socket}, Stderr: log,
	})
	socket.Close() // an agent that dies at once must not look like one that is silent
	if err != nil {
		stderr.Close()
		return errors.Join(fmt.Errorf("node %s: starting its agent: %w", n.Plan.Name, err), client.Close())
	}
	n.process, n.agent = process, client
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		copyLines(l.log, n.Plan.Name, stderr)
	}()
	l.onDown("last words of "+n.Plan.Name, func(ctx context.Context) error {
		select {
		case <-copied:
		case <-ctx.Done():
		}
		return nil
	})
	l.onDown("agent of "+n.Plan.Name, n.stopAgent)
	go func() {
		<-process.Done()
		if !l.isDown() {
			l.fail(n.Err())
		}
	}()
	if n.hello, err = client.Hello(ctx); err != nil {
		return err
	}
	return nil
}

// stopAgent closes the control socket, which ends the agent, and kills it if that takes too long.
func (n *Node) stopAgent(ctx context.Context) error {
	errClose := n.agent.Close()
	select {
	case <-n.process.Done():
		if n.process.Wait() != nil { // it would have ended well, had it been asked to
			n.lab.fail(n.Err())
		}
	case <-time.After(stopTimeout):
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return errors.Join(errClose, n.process.Stop(ctx))
}

// AgentError says that a node's agent ended though nobody had asked it to.
type AgentError struct {
	Node string
	Err  error // how it ended, such as an *exec.ExitError; nil: without an error
}

func (e *AgentError) Error() string {
	text := fmt.Sprintf("node %s: its agent has ended", e.Node)
	if e.Err != nil {
		text += fmt.Sprintf(" (%v)", e.Err)
	}
	return text
}

func (e *AgentError) Unwrap() error { return e.Err }

// Err is an *AgentError once the node's agent has ended, and nil while it runs or if there is none.
func (n *Node) Err() error {
	if n.process == nil {
		return nil
	}
	select {
	case <-n.process.Done():
		return &AgentError{n.Plan.Name, n.process.Wait()}
	default:
		return nil
	}
}

// copyLines copies what a node writes, line by line so that nodes do not mix, until the last process that could write has
// ended. A line may have any length.
func copyLines(to io.Writer, node string, from io.ReadCloser) {
	defer from.Close()
	for lines := bufio.NewReader(from); ; {
		line, err := lines.ReadString('\n')
		if line != "" {
			fmt.Fprintf(to, "%s: %s\n", node, strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			return
		}
	}
}

// lockedWriter lets the nodes write one after the other.
type lockedWriter struct {
	mu sync.Mutex
	to io.Writer
}

func (w *lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(b)
}

// makeCgroup caps the node's CPU as its profile says. Where the machine offers no cgroups the lab goes on without and
// says so.
func (n *Node) makeCgroup(l *Lab) error {
	if n.Plan.Profile == "" {
		return nil
	}
	profile, err := nodes.ProfileByName(n.Plan.Profile)
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Plan.Name, err)
	}
	cgroup, err := nodes.NewCgroup(l.Plan.Name, n.Plan.Name, profile, l.journal)
	if errors.Is(err, nodes.ErrNoCgroup) {
		l.warn(fmt.Sprintf("node %s: its profile %s caps nothing: %v", n.Plan.Name, profile.Name, err))
		return nil
	}
	if err != nil {
		return err
	}
	n.cgroup = cgroup
	l.onDown("cgroup of "+n.Plan.Name, func(context.Context) error { return cgroup.Remove() })
	return nil
}

// CapCore caps the node at what one core of its profile's device does, as nodes.Cgroup.CapCore has it. The error is
// nodes.ErrNoCgroup where the machine let the lab have no cgroup, or the node has no profile.
func (n *Node) CapCore() error {
	if n.cgroup == nil {
		return fmt.Errorf("node %s: %w", n.Plan.Name, nodes.ErrNoCgroup)
	}
	profile, err := nodes.ProfileByName(n.Plan.Profile)
	if err == nil {
		err = n.cgroup.CapCore(profile)
	}
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Plan.Name, err)
	}
	return nil
}

// CPU is what the node's processes have used: all of them where it has a cgroup, else its agent.
func (n *Node) CPU(ctx context.Context) (time.Duration, error) {
	switch {
	case n.cgroup != nil:
		c, err := n.cgroup.CPU()
		return c.User + c.System, err
	case n.agent != nil:
		u, err := n.agent.Usage(ctx)
		return u.CPU, err
	}
	return 0, nil
}

// Start runs a command in the node. It dies with the lab, and so does all that it starts. The program's main must call
// nodes.InitMain first.
func (n *Node) Start(c nodes.Command) (_ *nodes.Process, err error) {
	if c.PIDs, err = n.lab.commands(); err != nil {
		return nil, fmt.Errorf("node %s: start %s: %w", n.Plan.Name, c.Path, err)
	}
	return nodes.Start(n.ns, n.cgroup, c)
}

// PID is the process id of the node's agent; 0 if it has none.
func (n *Node) PID() int {
	if n.process == nil {
		return 0
	}
	return n.process.Pid()
}
