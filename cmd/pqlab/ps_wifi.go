package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pqlab/report"
	"pqlab/supervisor"
)

// refresh is how often a terminal shows the cells anew.
const refresh = time.Second

// cellView is a cell with what its counters grew by over some time.
type cellView struct {
	AP       string        `json:"ap"`
	Seconds  float64       `json:"seconds"`    // that all of it is about
	Busy     float64       `json:"busy_share"` // of them the channel was taken
	Stations []stationView `json:"stations"`
}

type stationView struct {
	Name     string  `json:"name"`
	Link     string  `json:"link"`
	Distance float64 `json:"distance_m"`
	Walls    int     `json:"walls"`
	Up       airView `json:"up"`   // from the station
	Down     airView `json:"down"` // to it
}

// airView is one direction. Of the embedded fields those that are not counters are as of now.
type airView struct {
	supervisor.WiFiDirection
	Goodput float64 `json:"delivered_bits_per_second"` // of Ethernet frames
	PER     float64 `json:"per"`                       // share of MPDUs that was not received
	Share   float64 `json:"airtime_share"`
	AMPDU   float64 `json:"mean_ampdu"` // MPDUs
}

// viewCell is the cell since before, or since it began if that is another one.
func viewCell(now, before supervisor.WiFiCell) cellView {
	if before.AP != now.AP || len(before.Stations) != len(now.Stations) || before.At > now.At {
		before = supervisor.WiFiCell{Stations: make([]supervisor.WiFiStation, len(now.Stations))}
	}
	took := (now.At - before.At).Seconds()
	v := cellView{AP: now.AP, Seconds: took, Busy: ratio((now.Busy - before.Busy).Seconds(), took), Stations: []stationView{}}
	for i, s := range now.Stations {
		b := before.Stations[i]
		v.Stations = append(v.Stations, stationView{
			Name: s.Name, Link: s.Link, Distance: s.Distance, Walls: s.Walls, Up: viewAir(s.Up, b.Up, took), Down: viewAir(s.Down, b.Down, took),
		})
	}
	return v
}

func viewAir(d, before supervisor.WiFiDirection, took float64) airView {
	d.Packets -= before.Packets
	d.Bytes -= before.Bytes
	d.Delivered -= before.Delivered
	d.DeliveredBytes -= before.DeliveredBytes
	d.LostQueue -= before.LostQueue
	d.LostRetries -= before.LostRetries
	d.PPDUs -= before.PPDUs
	d.Collisions -= before.Collisions
	d.MPDUs -= before.MPDUs
	d.Failed -= before.Failed
	d.Retries -= before.Retries
	d.Airtime -= before.Airtime
	return airView{
		WiFiDirection: d, Goodput: ratio(8*float64(d.DeliveredBytes), took), PER: ratio(float64(d.Failed), float64(d.MPDUs)),
		Share: ratio(d.Airtime.Seconds(), took), AMPDU: ratio(float64(d.MPDUs), float64(d.PPDUs)),
	}
}

// ratio is 0 where there is nothing to divide by.
func ratio(a, b float64) float64 {
	if b <= 0 {
		return 0
	}
	return a / b
}

// rows are a table for people.
func (v cellView) rows() [][]string {
	rows := [][]string{
		{fmt.Sprintf("cell %s: busy %s of %.1f s", v.AP, percent(v.Busy), v.Seconds)},
		{"STATION", "AT", "WAY", "SNR", "MCS", "PHY", "GOODPUT", "AIRTIME", "A-MPDU", "PER", "RETRIES", "QUEUED", "DROPS"},
	}
	for _, s := range v.Stations {
		at := fmt.Sprintf("%.3g m", s.Distance)
		if s.Walls > 0 {
			at += ", " + count(s.Walls, "wall")
		}
		rows = append(rows, append([]string{s.Name, at, "up"}, s.Up.cells()...), append([]string{"", "", "down"}, s.Down.cells()...))
	}
	return rows
}

func (a airView) cells() []string {
	per, ampdu := "-", "-" // of nothing that was sent
	if a.MPDUs > 0 {
		per, ampdu = percent(a.PER), fmt.Sprintf("%.1f", a.AMPDU)
	}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return []string{
		fmt.Sprintf("%.1f dB", a.SNR), fmt.Sprintf("%d, %s", a.MCS, count(a.Streams, "stream")), report.Rate(a.PHYRate), report.Rate(a.Goodput),
		percent(a.Share), ampdu, per, number(a.Retries), number(a.Queued), number(a.LostQueue + a.LostRetries),
	}
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

// airOf asks for the cells of a lab.
func airOf(ctx context.Context, client *supervisor.Client, lab string) ([]supervisor.WiFiCell, error) {
	s, err := client.Status(ctx)
	switch {
	case err != nil:
		return nil, err
	case s.State != supervisor.Running:
		return nil, fmt.Errorf("lab %s: %w: it is %s", lab, supervisor.ErrState, s.State)
	case len(s.WiFi) == 0:
		return nil, usageError{fmt.Errorf("lab %s: no link has Wi-Fi's airtime; a link of kind wifi has it where its topology has wifi: {profile: …}, with --shaper=wire or auto", lab)}
	}
	return s.WiFi, nil
}

// psWiFi shows the cells of a lab: once, or on a terminal each second until Ctrl-C.
func psWiFi(c *cobra.Command, lab string, asJSON bool) error {
	client, err := dial(c.Context(), lab)
	if err != nil {
		return err
	}
	cells, err := airOf(c.Context(), client, lab)
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	if asJSON {
		views := make([]cellView, len(cells))
		for i, now := range cells {
			views[i] = viewCell(now, supervisor.WiFiCell{})
		}
		return printJSON(out, views)
	}
	if !term.IsTerminal(int(os.Stdout.Fd())) {
		return printCells(out, cells, nil)
	}
	return watchCells(c.Context(), out, client, lab, cells)
}

// watchCells begins with the cells since they began.
func watchCells(ctx context.Context, out io.Writer, client *supervisor.Client, lab string, now []supervisor.WiFiCell) error {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	var before []supervisor.WiFiCell
	for {
		var page strings.Builder // written at once, so that nothing flickers
		page.WriteString("\x1b[H\x1b[J")
		if err := printCells(&page, now, before); err != nil {
			return err
		}
		if _, err := io.WriteString(out, page.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done(): // that it was ended is no failure
			return nil
		case <-tick.C:
		}
		next, err := airOf(ctx, client, lab)
		if ctx.Err() != nil {
			return nil
		}
		if isOver(err) { // somebody has taken it down, which ends this like Ctrl-C
			_, err := fmt.Fprintf(out, "%s is down\n", lab)
			return err
		}
		if err != nil {
			return err
		}
		before, now = now, next
	}
}

// isOver says whether the error is that of a lab that is down or goes down.
func isOver(err error) bool {
	var lost *supervisor.LostError
	return errors.As(err, &lost) || errors.Is(err, supervisor.ErrState) || errors.Is(err, supervisor.ErrNotFound)
}

func printCells(w io.Writer, now, before []supervisor.WiFiCell) error {
	var errs []error
	for i, cell := range now {
		var b supervisor.WiFiCell
		if i < len(before) {
			b = before[i]
		}
		rows := viewCell(cell, b).rows()
		if i > 0 {
			rows[0][0] = "\n" + rows[0][0]
		}
		_, err := fmt.Fprintln(w, rows[0][0])
		errs = append(errs, err, table(w, rows[1:]...))
	}
	return errors.Join(errs...)
}
