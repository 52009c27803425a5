package hygiene

import (
	"bufio"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/capture"
	"pqlab/nodes"
	"pqlab/suites/testlab"
	"pqlab/topology"
)

// labs come up and go down. Guard looks at what is left.
func labs(e testlab.Env) {
	for _, b := range topology.Builtins() {
		builtin := func() *topology.Topology {
			t, err := topology.Builtin(b.Name)
			Expect(err).NotTo(HaveOccurred())
			return t
		}
		It("leaves nothing: "+b.Name, func(ctx SpecContext) {
			l := e.Up(ctx, builtin(), nil)
			for _, t := range l.Plan.Tunnels {
				_, err := l.Tunnel(t.Name).Establish(ctx)
				Expect(err).NotTo(HaveOccurred())
			}
			Expect(l.Down(ctx)).To(Succeed())
		})
		It("leaves nothing: "+b.Name+" with device profiles and captures", func(ctx SpecContext) {
			t := builtin()
			for i := range t.Nodes {
				if t.Nodes[i].Kind != topology.Switch && t.Nodes[i].Kind != topology.AP {
					t.Nodes[i].Profile = "xeon"
				}
			}
			l := e.Up(ctx, t, nil)
			dir := directory()
			var taps []*capture.Tap
			for _, link := range l.Plan.Links {
				f, err := os.Create(filepath.Join(dir, link.Name))
				Expect(err).NotTo(HaveOccurred())
				DeferCleanup(f.Close)
				tap, err := capture.Open(l.Node(link.A.Node).Namespace(), link.A.Interface, capture.Options{File: capture.NewFile(f, "specs")})
				Expect(err).NotTo(HaveOccurred())
				taps = append(taps, tap)
			}
			for _, t := range l.Plan.Tunnels {
				_, err := l.Tunnel(t.Name).Establish(ctx)
				Expect(err).NotTo(HaveOccurred())
			}
			for _, tap := range taps {
				_, err := tap.Close()
				Expect(err).NotTo(HaveOccurred())
			}
			Expect(l.Down(ctx)).To(Succeed())
		})
	}

	DescribeTable("leaves none of the commands that ran in it", func(ctx SpecContext, b *topology.Builder) {
		l := e.Up(ctx, b, nil)
		r, w, err := os.Pipe()
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(r.Close)
		_, err = l.Node(l.Plan.Nodes[0].Name).Start(nodes.Command{Path: "/bin/sh", Args: []string{"-c", stubborn}, Stdout: w})
		w.Close()
		Expect(err).NotTo(HaveOccurred())
		Expect(r.SetReadDeadline(time.Now().Add(testlab.Patience(cleanTime)))).To(Succeed())
		words := bufio.NewScanner(r)
		Expect(words.Scan()).To(BeTrue(), "it did not start")
		Expect(l.Down(ctx)).To(Succeed())
		Expect(words.Scan()).To(BeFalse())
		Expect(words.Err()).NotTo(HaveOccurred(), "a process that it started lives, and holds its output")
	},
		Entry("without a cgroup", topology.New("plain").Host("a").Host("b").Ethernet("a", "b")),
		Entry("with a cgroup", topology.New("capped").Host("a", topology.Profile("xeon")).Host("b").Ethernet("a", "b")),
	)
}

// stubborn is a shell's command that ignores signals, and leaves children in other sessions that do so too.
const stubborn = `trap "" TERM HUP INT; setsid sh -c 'trap "" TERM HUP INT; sleep 1000 & sleep 1000' & (setsid sleep 1000 &)
echo ready; while :; do wait; done`
