package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"pqlab/internal/vm"
	"pqlab/internal/vm/kernel"
	"pqlab/ipsec/strongswan"
)

// exitTimeout is that of timeout(1).
const exitTimeout = 124

func newVM() *cobra.Command {
	c := &cobra.Command{
		Use: "vm [flags] -- CMD…", Short: "Run a command in a guest kernel, over this machine's files",
		Long: `vm runs CMD in a guest kernel, under QEMU, over this machine's files. What CMD writes stays in memory and is gone
afterwards, but for the working directory and each --share DIR: those are the real ones. The guest has no network.

The exit status is CMD's, 128 and the signal's number if it died of a signal, 124 after --timeout, 126 or 127 if it
cannot be started; 3 if there can be no guest here, and 1 if the guest died. Ctrl-C goes to CMD; on a terminal Ctrl-]
three times within a second ends the guest.`,
		Example: "  pqlab vm -- uname -r\n  go test -exec 'pqlab vm --' ./links",
		Args: func(c *cobra.Command, a []string) error {
			if c.ArgsLenAtDash() != 0 || len(a) == 0 {
				return usageError{errors.New("want a command behind --: pqlab vm -- uname -r; see pqlab vm --help")}
			}
			return nil
		},
	}
	image := kernelFlag(c)
	memory := c.Flags().String("memory", "512M", "of the guest, in bytes with a suffix K, M or G")
	cpus := c.Flags().Int("cpus", 0, "of the guest; 0: up to 4 under KVM, and 1 under TCG, where more are of no use")
	shares := c.Flags().StringArray("share", nil, "a directory that CMD can write to, beside the working directory; can be given more than once")
	timeout := c.Flags().Duration("timeout", 0, "end CMD after this time, the boot included; 0: never")
	accel := c.Flags().String("accel", vm.Auto, "how the guest's processor is made: kvm, tcg, or auto, which takes kvm where it boots guests")
	modules := c.Flags().String("modules", "", "the directory of the kernel's modules, where it is not found by itself (/lib/modules/RELEASE)")
	c.RunE = func(c *cobra.Command, a []string) error {
		size, err := parseSize(*memory)
		if err != nil {
			return usageError{fmt.Errorf("--memory %q: %w", *memory, err)}
		}
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		config := vm.Config{
			Args: a, Env: guestEnviron(os.Environ()), Dir: dir, Shares: *shares, Memory: size, CPUs: *cpus, Accel: *accel, Timeout: *timeout,
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		}
		if err := config.Check(); err != nil {
			return usageError{err}
		}
		cache, err := kernel.UserCache()
		if err != nil {
			return err
		}
		config.Cache = filepath.Dir(cache.Dir)
		if config.Kernel, err = cache.Find(*image); err != nil {
			return err
		}
		if *modules != "" {
			if config.Kernel.Modules, err = filepath.Abs(*modules); err != nil {
				return err
			}
		}
		signals, stop := notify()
		defer stop()
		config.Signals = signals
		p := newProgress(false)
		config.Say = func(what string) {
			if what == "" {
				p.done()
				return
			}
			p.show(what)
		}
		// Not the context's own end, which Ctrl-C brings: that goes to the command.
		status, err := vm.Run(context.WithoutCancel(c.Context()), config)
		p.done()
		var failed *vm.Error
		switch {
		case err == nil && status != 0:
			return exitError(status)
		case errors.Is(err, vm.ErrTimeout), errors.As(err, &failed) && failed.Status != 0:
			fmt.Fprintln(c.ErrOrStderr(), "pqlab:", err)
			if failed != nil && failed.Status != 0 {
				return exitError(failed.Status)
			}
			return exitError(exitTimeout)
		}
		return err
	}
	c.AddCommand(newVMFetch())
	return c
}

func kernelFlag(c *cobra.Command) *string {
	return c.Flags().String("kernel", "", `a path, the name of a Debian package, or host for the running one (default: Debian's newest `+kernel.Default+`)`)
}

// guestEnviron is the environment in the guest. /run is the guest's own, so what is named there is not.
func guestEnviron(environ []string) []string {
	var env []string
	for _, v := range environ {
		if !strings.HasPrefix(v, "XDG_RUNTIME_DIR=") {
			env = append(env, v)
		}
	}
	return env
}

// notify catches what is meant for the command.
func notify() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 16)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH} {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	return c, func() { signal.Stop(c) }
}

// parseSize reads a number of bytes with a suffix.
func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "KMGiB")
	unit, ok := map[string]int64{
		"": 1, "B": 1, "K": 1 << 10, "KiB": 1 << 10, "M": 1 << 20, "MiB": 1 << 20, "G": 1 << 30, "GiB": 1 << 30,
	}[text[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n < 0 || n > 1<<40/unit {
		return 0, errors.New("want a size, like 512M or 1G")
	}
	return n * unit, nil
}

func newVMFetch() *cobra.Command {
	c := &cobra.Command{
		Use: "fetch", Short: "Get a kernel for guests from Debian, or strongSwan",
		Long: `fetch downloads a package with a kernel by apt-get download, checks it against apt's lists, and unpacks it into
$XDG_CACHE_HOME/pqlab/kernels (~/.cache/pqlab/kernels). It installs nothing and needs no root. What is there already is
not fetched again.

With --strongswan it gets strongSwan in the same way, into $XDG_CACHE_HOME/pqlab/strongswan, for tunnels that it keys
(--keying strongswan).`,
		Args: args(cobra.NoArgs),
	}
	asJSON := jsonFlag(c)
	name := c.Flags().String("kernel", "", `the name of a Debian package (default: Debian's newest `+kernel.Default+`)`)
	swan := c.Flags().Bool("strongswan", false, "strongSwan, and no kernel")
	c.MarkFlagsMutuallyExclusive("kernel", "strongswan")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *swan {
			return fetchStrongswan(c, *asJSON)
		}
		cache, err := kernel.UserCache()
		if err != nil {
			return err
		}
		p := newProgress(*asJSON)
		k, err := cache.Fetch(c.Context(), kernel.Apt{}, *name, p.show)
		p.done()
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), k)
		}
		fmt.Fprintln(c.OutOrStdout(), k.Image)
		return nil
	}
	return c
}

func fetchStrongswan(c *cobra.Command, asJSON bool) error {
	dir, err := strongswan.CacheDir()
	if err != nil {
		return err
	}
	p := newProgress(asJSON)
	_, err = kernel.Cache{Dir: dir}.FetchPackages(c.Context(), kernel.Apt{}, strongswan.Packages(), p.show)
	p.done()
	if err != nil {
		return fmt.Errorf("strongSwan: %w", err)
	}
	i, err := strongswan.Find(dir)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(c.OutOrStdout(), i)
	}
	fmt.Fprintln(c.OutOrStdout(), i.Program)
	return nil
}
