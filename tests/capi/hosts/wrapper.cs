// What examples/csharp/*.cs promise beside what Inspect.cs uses. Arguments: a bundle. Ends with 0, or with the line of the
// statement that is not so.
using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.CompilerServices;
using System.Threading;
using System.Threading.Tasks;
using NdpRt;

internal static class Wrapper
{
    private const int Side = 64;

    private static int Main(string[] arguments)
    {
        string bundle = arguments[0];
        var messages = new List<string>();
        Library.SetLog((level, message) => messages.Add(message), Log.Debug);
        Expect(Library.AbiFits && Library.Describe().StartsWith("ndp-rt " + Library.Version, StringComparison.Ordinal));
        using (var inspector = new Inspector(bundle, MakeOptions()))
        {
            Expect(inspector.Threshold == 0.25 && inspector.Info.InputWidthPx > 0);
            Expect(inspector.Describe().Contains("openvino") || inspector.Describe().Contains("cpu"));
            CheckResults(inspector);
            CheckContours(inspector, bundle);
            CheckErrors(inspector, bundle);
            CheckTasks(inspector);
        }
        CheckFullQueue(bundle);
        CheckDisposing(bundle);
        Library.SetLog(null);
        return 0;
    }

    private static InspectorOptions MakeOptions()
    {
        return new InspectorOptions { Threads = 1, QueueCapacity = 4, Threshold = 0.25, Plan = "staged" };
    }

    private static Image MakeImage(int seed)
    {
        var pixels = new byte[Side * Side];
        new Random(seed).NextBytes(pixels);
        return new Image(pixels, Side, Side, Pixel.Grey8);
    }

    private static void CheckResults(Inspector inspector)
    {
        Image[] images = { MakeImage(1), MakeImage(2), MakeImage(3) };
        Result[] batch = inspector.InspectBatch(images, Outputs.Map | Outputs.Mask | Outputs.Defects);
        for (int i = 0; i < images.Length; i++)
        {
            Result one = inspector.Inspect(images[i]);
            Expect(one.Score == batch[i].Score && one.Map.SequenceEqual(batch[i].Map) && one.Mask == null);
            Expect(one.Map.Length == Side * Side && one.DefectCount == one.Defects.Length);
            Expect(batch[i].Mask.Select((value, k) => (value == 255) == (one.Map[k] >= 0.25)).All(same => same));
        }
        Expect(inspector.Inspect(images[0], Outputs.Score).Map == null);
        Expect(inspector.InspectLarge(images[0], 0).Map.Length == Side * Side);
        inspector.Threshold = 2;
        Expect(!inspector.Inspect(images[0]).IsDefect);
        inspector.SetReference(images[1]);
        Expect(inspector.Timings.InspectionCount >= 8);
    }

    private static void CheckContours(Inspector plain, string bundle)
    {
        using (var inspector = new Inspector(bundle, new InspectorOptions { Threshold = 0.05, Contours = true }))
        {
            Result found = inspector.Inspect(MakeImage(9), Outputs.Contours);
            Expect(found.Defects.Length > 0 && found.PointCount == found.Points.Length && found.Map == null);
            foreach (Defect one in found.Defects)
                Expect(found.Points.Skip((int)one.FirstPoint).Take((int)one.PointCount).All(point =>
                    point.XPx >= one.XPx && point.XPx < one.XPx + one.WidthPx && point.YPx >= one.YPx
                    && point.YPx < one.YPx + one.HeightPx));
            Expect(found.Defects.Sum(one => one.PointCount) == found.Points.Length);
            Expect(inspector.Inspect(MakeImage(9)).Points == null);
        }
        Expect(StatusOf(() => plain.Inspect(MakeImage(9), Outputs.Contours)) == Status.Input);
    }

    private static void CheckErrors(Inspector inspector, string bundle)
    {
        var keyless = new InspectorOptions { RequireSignature = "/nowhere/key.pub" };
        var darker = new InspectorOptions { WhiteLevel16bit = 65536 };
        var maskless = new InspectorOptions { IgnoreMask = "/nowhere/mask.png" };
        var twoAreas = new InspectorOptions { SmallestAreaPx = 9, SmallestAreaMm2 = 0.5, MmPerPixel = 0.5 };
        Expect(StatusOf(() => new Inspector(bundle, keyless)) == Status.Input);
        Expect(StatusOf(() => new Inspector(bundle, maskless)) == Status.Input);
        Expect(StatusOf(() => new Inspector(bundle, twoAreas)) == Status.Input);
        Expect(StatusOf(() => new Inspector(bundle, darker)) == Status.Input);
        Expect(StatusOf(() => new Inspector("/nowhere/tiles.ndp")) == Status.Bundle);
        Expect(StatusOf(() => inspector.Inspect(new Image(IntPtr.Zero, 0, -1, Pixel.Grey8))) == Status.Input);
        Expect(StatusOf(() => inspector.Inspect(new Image(new byte[4], 2, 2, Pixel.BayerRg8))) == Status.Input);
        Expect(StatusOf(() => inspector.Threshold = double.NaN) == Status.Input);
        try
        {
            new Image(new byte[3], 2, 2, Pixel.Grey8).ToString();
            Expect(false);
        }
        catch (ArgumentException)
        {
        }
    }

    // Four tasks at a time, with collections while the library's thread is inside C and inside a callback.
    private static void CheckTasks(Inspector inspector)
    {
        double expected = inspector.Inspect(MakeImage(7)).Score;
        for (int round = 0; round < 10; round++)
        {
            Task<Result>[] tasks = Enumerable.Range(0, 4).Select(i => inspector.InspectAsync(MakeImage(7))).ToArray();
            GC.Collect();
            Expect(tasks.All(task => task.Result.Score == expected));
        }
        Expect(StatusOf(() => inspector.InspectAsync(new Image(IntPtr.Zero, 2, 2, Pixel.Grey8)).Wait()) == Status.Input);
        var full = new List<Task<Result>>();
        Expect(StatusOf(() =>
        {
            for (int i = 0; i < 1000; i++)
                full.Add(inspector.InspectAsync(MakeImage(7)));
        }) == Status.QueueFull);
        Task.WaitAll(full.ToArray());
    }

    // With room for one image, of many that come faster than one is inspected: all end, and each says how.
    private static void CheckFullQueue(string bundle)
    {
        var options = new InspectorOptions { Threads = 1, QueueCapacity = 1, NewestWins = true };
        using (var inspector = new Inspector(bundle, options))
        using (var source = new CancellationTokenSource())
        {
            var tasks = Enumerable.Range(0, 200).Select(i => inspector.InspectAsync(MakeImage(7))).ToList();
            Expect(tasks.Last().Result.Score > 0); // the newest is never dropped
            tasks.ForEach(task => Task.WaitAny(task));
            Expect(tasks.All(task => !task.IsFaulted || HasFailed(task, Status.Dropped)));
            Expect(inspector.Timings.DroppedCount == (ulong)tasks.Count(task => task.IsFaulted));

            source.Cancel();
            Task<Result> late = inspector.InspectAsync(MakeImage(7), Outputs.Score, source.Token);
            Task.WaitAny(late);
            Expect(late.IsCanceled || late.Result.Score > 0); // cancelled, unless its turn had come
            var image = MakeImage(7);
            image.DeadlineMs = 1;
            Expect(StatusOf(() => inspector.Inspect(image)) == Status.Input);
            Task<Result> timely = inspector.InspectAsync(image);
            Task.WaitAny(timely);
            Expect(!timely.IsFaulted || HasFailed(timely, Status.Expired));
            inspector.Cancel();
        }
    }

    private static bool HasFailed(Task task, Status status)
    {
        return task.IsFaulted && ((NdpRtException)task.Exception.InnerException).Status == status;
    }

    private static void CheckDisposing(string bundle)
    {
        var inspector = new Inspector(bundle, new InspectorOptions { Threads = 1 });
        Task<Result>[] tasks = Enumerable.Range(0, 8).Select(i => inspector.InspectAsync(MakeImage(i))).ToArray();
        inspector.Dispose();
        Expect(tasks.All(task => task.IsCompleted || task.ContinueWith(one => true).Result));
        Expect(tasks.Any(task => HasFailed(task, Status.Cancelled)));
        try
        {
            inspector.WarmUp();
            Expect(false);
        }
        catch (ObjectDisposedException)
        {
        }
    }

    private static Status StatusOf(Action action)
    {
        try
        {
            action();
            return Status.Ok;
        }
        catch (NdpRtException error)
        {
            return error.Message.Length > 10 ? error.Status : Status.Internal;
        }
    }

    private static void Expect(bool isTrue, [CallerLineNumber] int line = 0)
    {
        if (isTrue)
            return;
        Console.Error.WriteLine("wrapper.cs: line " + line);
        Environment.Exit(1);
    }
}
