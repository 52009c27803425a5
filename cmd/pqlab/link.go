package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pqlab/supervisor"
	"pqlab/topology"
)

func newLink() *cobra.Command {
	c := &cobra.Command{Use: "link", Short: "Change links of a lab that is up"}
	group(c)
	c.AddCommand(newLinkSet())
	return c
}

func newLinkSet() *cobra.Command {
	var keys []string
	for some := range slices.Chunk(topology.ShapeKeys(), 7) {
		keys = append(keys, "  "+strings.Join(some, ", "))
	}
	stationKeys := strings.Join(topology.StationKeys(), ", ")
	c := &cobra.Command{
		Use: "set LAB LINK KEY=VALUE…", Short: "Change what a link does to packets, or where its Wi-Fi station is",
		Long: "set gives keys of a link new values, as a topology has them:\n\n" + strings.Join(keys, ",\n") + `

The value none takes a key back. What is not named stays as it is. It holds for both directions, or with --from for what
that node sends. A lab that is up keeps its shaper; one that is up with --shaper wire can change to all of it.

A Wi-Fi link with airtime takes of these the delay alone, and what its wifi has but for the radio:

  ` + stationKeys + `

Its station is where it is for both directions, so not with --from. mcs=auto has rate control choose.

A trace may come from a file, {file: NAME}, or from standard input, {file: -}; what is in it is read here and now.

All of it is changed or nothing; pqlab ps LAB shows what holds.`,
		Example: "  pqlab link set lab h1-h2 delay=20ms jitter=2ms loss=1%\n  pqlab link set lab h1-h2 --from h1 rate=10Mbit/s\n" +
			"  pqlab link set lab h1-h2 loss=none 'gilbert_elliott={p: 1%, r: 25%}'\n" +
			"  pqlab link set lab laptop-ap distance=20m walls=1 mcs=auto\n" +
			"  pqlab link set lab h1-h2 rate=none 'rate_trace={file: lte.trace}'",
		Args:        args(cobra.MinimumNArgs(3)),
		Annotations: map[string]string{ifInterrupted: "the lab stays up, and the change may or may not hold; pqlab ps LAB tells"},
	}
	asJSON := jsonFlag(c)
	from := c.Flags().String("from", "", "change only what this node, one end of the link, sends")
	c.RunE = func(c *cobra.Command, a []string) error {
		name, link, change := a[0], a[1], a[2:]
		change, err := topology.InlineChange(change, c.InOrStdin()) // mistakes are told even if there is no such lab
		if err != nil {
			return err
		}
		client, err := dial(c.Context(), name)
		if err != nil {
			return err
		}
		now, err := client.SetLink(c.Context(), link, *from, change)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), now)
		}
		return table(c.OutOrStdout(), linkRows(now)...)
	}
	return c
}

// linkRows describes a link, one direction in a row where they differ.
func linkRows(l supervisor.LinkStatus) [][]string {
	a, b := shapeText(l.FromA), shapeText(l.FromB)
	if a == b {
		return [][]string{{l.Name, l.Kind, l.Shaper, l.A, l.B, a}}
	}
	return [][]string{
		{l.Name, l.Kind, l.Shaper, l.A, l.B, "from " + l.A + ": " + a},
		{"", "", "", "", "", "from " + l.B + ": " + b},
	}
}

func shapeText(s supervisor.ShapeStatus) string {
	if s.Lateness == nil || len(s.Lateness.Late) == 0 {
		return s.Text
	}
	return s.Text + "; late: " + strings.Join(s.Lateness.Late, ", ")
}
