package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"pqlab/run"
	"pqlab/supervisor"
	"pqlab/topology"
)

func newCapture() *cobra.Command {
	c := &cobra.Command{
		Use:   "capture LAB [LINK…]",
		Short: "Write what passes links of a lab that is up to a pcapng file",
		Long: `capture writes what passes the links of a lab that is up, all or some, at both ends of each, to a pcapng file that
tshark and Wireshark read: frames whole, also those that the kernel joins (GSO), in the order of time. The file has what
decrypts the TLS sessions of the key exchanges that begin meanwhile; with --export-keys the keys of ESP are written beside
it. It ends with Ctrl-C, at a limit, or with the lab, and is complete then.`,
		Example: "  pqlab capture pair -o pair.pcapng --duration 10s\n" +
			"  pqlab capture pair a-b -o - | tshark -r -\n" +
			"  pqlab capture pair --export-keys --rekey --count 1000\n" +
			"  WIRESHARK_CONFIG_DIR=pair.wireshark tshark -r pair.pcapng",
		Args: args(cobra.MinimumNArgs(1)),
	}
	asJSON := jsonFlag(c)
	secrets := addSecretFlags(c)
	out := c.Flags().StringP("output", "o", "", "file; - is standard output; otherwise LAB.pcapng")
	packets := &amount[uint64]{kind: "count", parse: topology.ParseCount}
	size := &amount[uint64]{kind: "size", parse: topology.ParseBytes}
	c.Flags().VarP(packets, "count", "c", "end after so many packets")
	c.Flags().Var(size, "size", "end before the file gets larger, such as 100MB")
	duration := c.Flags().Duration("duration", 0, "end after this time")
	files := c.Flags().Int("files", 0, "do not end at --size but begin another file, and keep so many")
	snap := c.Flags().Int("snaplen", 0, "keep so many bytes of each frame; otherwise all")
	rekey := c.Flags().Bool("rekey", false, "replace the tunnels' keys when the capture has begun, so that it has an exchange and all keys")
	c.RunE = func(c *cobra.Command, a []string) error {
		o := run.RecordOptions{
			Request:  supervisor.CaptureRequest{Links: a[1:], SnapLen: *snap, TLS: secrets.tls, SAs: secrets.keys, Rekey: *rekey},
			Path:     *out,
			Duration: *duration, Packets: packets.value, Bytes: int64(size.value), Files: *files, Version: version,
			Note: func(text string) { fmt.Fprintln(os.Stderr, "pqlab:", text) },
		}
		switch *out {
		case "":
			o.Path = path.Base(a[0]) + ".pcapng"
		case "-":
			o.Path, o.Stdout = "", os.Stdout
		}
		if err := checkCapture(c, o, *asJSON); err != nil {
			return usageError{err}
		}
		client, err := dial(c.Context(), a[0])
		if err != nil {
			return err
		}
		result, err := run.CaptureLab(c.Context(), client, o)
		if result.Ended == "" { // it did not begin
			return err
		}
		if *asJSON {
			err = errors.Join(err, printJSON(c.OutOrStdout(), result))
		} else {
			tellCapture(o, result)
		}
		if err != nil && c.Context().Err() != nil { // the file is what was asked for; that it was ended is no failure
			fmt.Fprintln(os.Stderr, "pqlab:", err)
			return exitError(exitFailed)
		}
		return err
	}
	return c
}

// checkCapture refuses what makes no sense together.
func checkCapture(c *cobra.Command, o run.RecordOptions, asJSON bool) error {
	set := c.Flags().Changed
	switch {
	case o.Request.SnapLen < 0:
		return fmt.Errorf("--snaplen %d: want a number of bytes", o.Request.SnapLen)
	case set("duration") && o.Duration <= 0:
		return fmt.Errorf("--duration %v: want a time above 0", o.Duration)
	case set("files") && o.Files < 2:
		return fmt.Errorf("--files %d: a ring has 2 or more", o.Files)
	case o.Files > 0 && o.Bytes == 0:
		return errors.New("--files: goes with --size, which says when a file is full")
	case set("size") && o.Bytes < 1<<16:
		return fmt.Errorf("--size %d: want 64KiB or more", o.Bytes)
	case o.Stdout == nil:
		return nil
	case o.Request.SAs:
		return errors.New("--export-keys: the keys go beside the capture, and standard output has no beside; name a file with -o")
	case o.Files > 0:
		return errors.New("--files: standard output is one")
	case asJSON:
		return errors.New("--json: standard output is the capture's")
	case term.IsTerminal(int(os.Stdout.Fd())):
		return errors.New("-o -: a terminal cannot show a capture; pipe it: pqlab capture … -o - | tshark -r -")
	}
	return nil
}

// tellCapture says what became of a capture, on standard error: standard output may be the capture.
func tellCapture(o run.RecordOptions, r run.Record) {
	where := "standard output"
	if len(r.Files) > 0 {
		where = strings.Join(r.Files, ", ")
	}
	fmt.Fprintf(os.Stderr, "%s of %s to %s\n", count(int(r.Captured), "packet"), count(r.Links, "link"), where)
	if r.Dropped > 0 {
		fmt.Fprintf(os.Stderr, "warning: %s passed and are in no file: they came faster than they could be written; --snaplen or fewer links would help\n",
			count(int(r.Dropped), "packet"))
	}
	if r.Unordered > 0 {
		fmt.Fprintf(os.Stderr, "warning: %s out of order\n", count(int(r.Unordered), "packet"))
	}
	if r.Sessions > 0 {
		fmt.Fprintf(os.Stderr, "has what decrypts %s; --tls-secrets=false leaves that out\n", count(r.Sessions, "TLS session"))
	}
	if r.Table == "" {
		return
	}
	fmt.Fprintf(os.Stderr, "keys of %s in %s: WIRESHARK_CONFIG_DIR=%s tshark -r %s\n", count(r.SAs, "SA"), r.Table, r.Table, r.Files[len(r.Files)-1])
	if !o.Request.Rekey {
		fmt.Fprintln(os.Stderr, "SAs that were there before the capture are not among them; --rekey replaces those")
	}
}

// secretFlags say what a capture has of secrets.
type secretFlags struct {
	tls, keys bool
	set       *pflag.FlagSet
}

func addSecretFlags(c *cobra.Command) *secretFlags {
	f := &secretFlags{set: c.Flags()}
	f.set.BoolVar(&f.tls, "tls-secrets", true, "put into a capture what decrypts the key exchanges' TLS; it does not give the keys of ESP")
	f.set.BoolVar(&f.keys, "export-keys", false, "write the ESP keys beside a capture, and comments where keys change")
	return f
}

// need refuses the flags where there is no capture.
func (f *secretFlags) need(flag string) error {
	for _, name := range []string{"tls-secrets", "export-keys"} {
		if f.set.Changed(name) {
			return usageError{fmt.Errorf("--%s: there is no capture that it could be for; it goes with %s", name, flag)}
		}
	}
	return nil
}
