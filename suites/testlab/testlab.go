// Package testlab is what the suites share: labs that last one spec, and the check that nothing is left of them.
package testlab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/internal/hygiene"
	"pqlab/internal/journal"
	"pqlab/internal/netns"
	"pqlab/internal/rootless"
	"pqlab/ipsec/xfrm"
	"pqlab/lab"
	"pqlab/nodes"
	"pqlab/probe"
	"pqlab/topology"
)

// Unstalled is the deadline of exchanges that are to succeed: long enough for a busy machine that runs one end late, which
// the default of five seconds is not. Where an exchange is to run out of time the spec chooses.
const Unstalled = 40 * time.Second

// cleanTimeout bounds how long the kernel may take to free what a lab gave up.
const cleanTimeout = time.Minute

// Env is where specs run.
type Env struct {
	Owner hygiene.Owner // who answers for what is left
	Lab   lab.Options   // how labs are made

	kernel func() (bool, error)

	// Binary is pqlab itself, for specs that start and kill it; empty where the specs do not.
	Binary string
}

// NewEnv makes this process answer for what its specs leave. Call it once.
func NewEnv() Env {
	beingPatient()
	e := Env{Owner: hygiene.Self(), Lab: lab.Options{
		Log: GinkgoWriter, Dataplane: os.Getenv(dataplaneEnv), Quiet: Quiet(),
	}}
	e.kernel = sync.OnceValues(func() (bool, error) {
		p, err := probe.Dataplane(e.Lab.Dataplane)
		return p.Name == probe.XFRM, err
	})
	return e
}

// dataplaneEnv names the dataplane to verify: "gateway", "xfrm"; empty or "auto" is the kernel's where it is.
const dataplaneEnv = "PQLAB_DATAPLANE"

// Kernel says whether the tunnels of labs are the kernel's own. Specs ask where the kernel does otherwise than the gateway,
// by documented behaviour. It is for the bodies of specs.
func (e Env) Kernel() bool {
	GinkgoHelper()
	kernel, err := e.kernel()
	Expect(err).NotTo(HaveOccurred())
	return kernel
}

// Provokes labels specs that make the kernel refuse packets. After every other one its IPsec must have refused none.
const Provokes = "provokes"

// refusedNothing fails where the kernel's IPsec has counted a refusal in a node whose tunnels it carries.
func refusedNothing(l *lab.Lab) {
	if slices.Contains(CurrentSpecReport().Labels(), Provokes) {
		return
	}
	rose, err := l.XfrmStatistics()
	if errors.Is(err, netns.ErrClosed) { // the spec has taken the lab down
		return
	}
	Expect(err).NotTo(HaveOccurred())
	maps.DeleteFunc(rose, func(_ string, s xfrm.Statistics) bool { return len(s) == 0 })
	Expect(rose).To(BeEmpty(), "/proc/net/xfrm_stat has risen")
}

// Guard makes every spec of the container fail that leaves something behind: a namespace, interface, SA, policy, cgroup,
// process, file, descriptor, goroutine or thread. Call it first in the container.
func (e Env) Guard() { BeforeEach(e.guard) }

// GuardAll does so for an Ordered container as a whole, where a lab outlives a spec.
func (e Env) GuardAll() { BeforeAll(e.guard) }

func (e Env) guard() {
	before, err := hygiene.Take()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		patience, cancel := context.WithTimeout(ctx, Patience(cleanTimeout))
		defer cancel()
		left, err := hygiene.Settled(patience, before, e.Owner)
		Expect(err).NotTo(HaveOccurred())
		Expect(left).To(BeEmpty(), "left behind")
	}, NodeTimeout(Patience(2*cleanTimeout))) // which only says that time is over, and not what was left
}

// Planner is a lab that can be made: a topology.Builder or a topology.Topology.
type Planner interface {
	Plan() (*topology.Plan, error)
}

// Shaped is the name of the report entries that say what shaped the links of a spec's lab, as lab.Lab.ShapedBy has it.
const Shaped = "shaped by"

// Up makes a lab for one spec. change, which may be nil, sees the options first.
func (e Env) Up(ctx context.Context, t Planner, change func(*lab.Options)) *lab.Lab {
	GinkgoHelper()
	plan, err := t.Plan()
	Expect(err).NotTo(HaveOccurred())
	extend(plan)
	o := e.Lab
	if change != nil {
		change(&o)
	}
	l, err := lab.Up(ctx, plan, o)
	Expect(err).NotTo(HaveOccurred())
	AddReportEntry(Shaped, l.ShapedBy(), ReportEntryVisibilityNever)
	DeferCleanup(func(ctx SpecContext) { Expect(l.Down(ctx)).To(Succeed()) }, NodeTimeout(Patience(cleanTimeout)))
	DeferCleanup(func() { refusedNothing(l) }) // before that
	return l
}

// extend gives the exchanges of a plan the time that this machine takes. Deadlines that a spec has chosen stay.
func extend(plan *topology.Plan) {
	for i := range plan.Tunnels {
		if d := &plan.Tunnels[i].Deadline; *d == topology.DefaultDeadline {
			*d = Unstalled
		}
	}
}

// Main is the TestMain of a suite.
func Main(m *testing.M) {
	nodes.InitMain()
	agent.Main()
	// Of the agents, under the race detector: a race ends the agent, so that its spec fails, and an end costs no second.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "halt_on_error=1 atexit_sleep_ms=0")
	}
	journal.SweeperMain()
	if err := rootless.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Run runs the specs of a claim as one Go test.
func Run(t *testing.T, claim string, specs func(Env)) {
	RegisterFailHandler(Fail)
	specs(NewEnv())
	config, reporter := GinkgoConfiguration()
	if config.LabelFilter == "" {
		config.LabelFilter = Emu
	}
	RunSpecs(t, claim, config, reporter)
}
