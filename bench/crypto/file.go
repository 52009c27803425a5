package crypto

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"unicode"
	"unicode/utf8"
)

// What a file of a Result begins with. The version changes with every change of what Read accepts.
const (
	Format        = "pqlab bench crypto"
	FormatVersion = 1
)

// maxFile bounds what is read, in bytes; a file of all schemes has some tens of thousands.
const maxFile = 1 << 20

// ErrFile says that a file holds no Result that this pqlab reads, or that files do not belong together.
var ErrFile = errors.New("not a result of pqlab bench crypto")

// Parse reads what WriteJSON wrote, and nothing that differs from it: fields that it does not know, numbers that no run can
// have, or another version are an ErrFile.
func Parse(text []byte) (Result, error) {
	refuse := func(format string, args ...any) (Result, error) {
		return Result{}, fmt.Errorf("%w: %s", ErrFile, fmt.Sprintf(format, args...))
	}
	if len(text) > maxFile {
		return refuse("longer than %d bytes", maxFile)
	}
	var head struct {
		Format        string `json:"format"`
		FormatVersion int    `json:"format_version"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return refuse("%v", err)
	}
	if head.Format != Format {
		return refuse("its format is %q, want %q", head.Format, Format)
	}
	if head.FormatVersion != FormatVersion {
		return refuse("version %d of the format, this pqlab reads version %d; measure again, or merge with the pqlab that wrote it",
			head.FormatVersion, FormatVersion)
	}
	var r Result
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return refuse("%v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return refuse("something follows the result")
	}
	if err := r.check(); err != nil {
		return refuse("%v", err)
	}
	return r, nil
}

// Read parses a file. Errors name it; those of its content are an ErrFile.
func Read(path string) (Result, error) {
	f, err := os.Open(path)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Result{}, err
	}
	r, err := Parse(text)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// WriteJSON writes what Parse reads.
func (r Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// maxName bounds names, in runes: they become titles of columns.
const maxName = 100

// CheckName refuses a device's name that cannot be the title of a column.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("a device needs a name")
	case !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxName:
		return fmt.Errorf("the name of a device has at most %d characters of UTF-8", maxName)
	}
	for _, c := range name {
		if !unicode.IsPrint(c) {
			return fmt.Errorf("the name of a device has no character like %q", c)
		}
	}
	return nil
}

// check refuses what Measure never gives.
func (r Result) check() error {
	if err := CheckName(r.Device); err != nil {
		return err
	}
	if r.Iterations < 1 || r.Iterations > MaxIterations {
		return fmt.Errorf("%d iterations", r.Iterations)
	}
	if r.Seconds < 0 || r.Machine.CPUs < 1 || r.Started.IsZero() {
		return fmt.Errorf("a run of %v s on %d CPUs at %v", r.Seconds, r.Machine.CPUs, r.Started)
	}
	if c := r.Machine.Counter; c != nil && (c.Name == "" || c.Hz <= 0 || c.CorePerTick.P10 <= 0 || !c.CorePerTick.ordered()) {
		return fmt.Errorf("a counter %q of %v Hz, %v core cycles a tick", c.Name, c.Hz, c.CorePerTick)
	}
	for _, f := range []*float64{r.Activity.LoadBefore, r.Activity.LoadAfter, r.Activity.OthersCores, r.Activity.StealCores} {
		if f != nil && *f < 0 {
			return errors.New("a load below 0")
		}
	}
	if r.Activity.Preempted < 0 {
		return errors.New("preempted less than never")
	}
	if err := r.Overhead.check(r.Machine.Counter != nil, 0); err != nil {
		return fmt.Errorf("the overhead: %w", err)
	}
	if len(r.Schemes) == 0 {
		return errors.New("no scheme")
	}
	names := map[string]bool{}
	for _, s := range r.Schemes {
		if err := CheckName(s.Name); err != nil || names[s.Name] {
			return fmt.Errorf("scheme %q is there twice, or has no name", s.Name)
		}
		names[s.Name] = true
		if err := s.check(r); err != nil {
			return fmt.Errorf("scheme %s: %w", s.Name, err)
		}
	}
	return nil
}

func (s Scheme) check(r Result) error {
	if s.PublicKey < 1 || (s.Kind == Signature) != (s.Signature > 0) || (s.Kind == KEM) != (s.Ciphertext > 0) || s.Signature < 0 || s.Ciphertext < 0 {
		return fmt.Errorf("sizes %d, %d and %d of a %s", s.PublicKey, s.Signature, s.Ciphertext, s.Kind)
	}
	want := Operations(s.Kind)
	if len(want) == 0 || len(s.Operations) != len(want) {
		return fmt.Errorf("%d operations of a %q", len(s.Operations), s.Kind)
	}
	for i, o := range s.Operations {
		if o.Name != want[i] || o.Side != Side(o.Name) {
			return fmt.Errorf("operation %q of the %q, want %q of the %q", o.Name, o.Side, want[i], Side(want[i]))
		}
		if err := o.Times.check(r.Machine.Counter != nil, math.SmallestNonzeroFloat64); err != nil {
			return fmt.Errorf("%s: %w", o.Name, err)
		}
		if o.Preempted < 0 || o.Outliers < 0 || o.Noisy < max(o.Preempted, o.Outliers) ||
			o.Noisy > min(r.Iterations, o.Preempted+o.Outliers) {
			return fmt.Errorf("%s: %d preempted, %d outliers, %d noisy of %d samples", o.Name, o.Preempted, o.Outliers, o.Noisy, r.Iterations)
		}
	}
	return nil
}

// check wants medians of at least least.
func (t Times) check(counted bool, least float64) error {
	if !t.NS.ordered() || t.NS.Median < least {
		return fmt.Errorf("times of %v ns", t.NS)
	}
	if (t.Cycles != nil) != counted {
		return errors.New("cycles without a counter, or a counter without cycles")
	}
	if t.Cycles != nil && (!t.Cycles.ordered() || t.Cycles.Median < least) {
		return fmt.Errorf("%v cycles", *t.Cycles)
	}
	return nil
}

// ordered says that quantiles are finite, not negative, and in their order.
func (s Spread) ordered() bool {
	return s.P10 >= 0 && s.P10 <= s.Median && s.Median <= s.P90 && !math.IsInf(s.P90, 0) && s.Mean >= 0 && !math.IsInf(s.Mean, 0)
}

// Replace writes a file in one step: whatever ends pqlab, it is the old one or the new one. What is no regular file (a
// terminal, a pipe) is written to as it is.
func Replace(path string, write func(io.Writer) error) (err error) {
	if at, err := filepath.EvalSymlinks(path); err == nil {
		path = at // a link stays a link
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
