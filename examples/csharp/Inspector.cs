// ndp_rt.h as classes. An Inspector may be called from any thread; calls take turns. What fails throws NdpRtException.
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;

namespace NdpRt
{
    // As ndp_rt_open_options; null and 0 mean the default.
    public sealed class InspectorOptions
    {
        public string Device { get; set; }
        public string Backend { get; set; }
        public string Precision { get; set; }
        public string Plan { get; set; }
        public int[] BatchSizes { get; set; }
        public int Threads { get; set; }
        public double? Threshold { get; set; } // null: the bundle's
        public double MmPerPixel { get; set; }
        public int QueueCapacity { get; set; }
        public int WhiteLevel16bit { get; set; } // of 16-bit images
        public string RequireSignature { get; set; } // path of the public key that the bundle has to be signed with
        public string IgnoreMask { get; set; } // path of an image of the images' size; what is not 0 there does not count
        public long SmallestAreaPx { get; set; } // regions with fewer pixels of the image are no defects
        public double SmallestAreaMm2 { get; set; } // likewise, with MmPerPixel
        public bool Build { get; set; } = true; // false: throw where an engine is missing
        public bool Fallback { get; set; } // where the GPU cannot be used, go on with the CPU
        public bool NewestWins { get; set; } // a full queue drops its oldest image, not the new one
        public bool Contours { get; set; } // trace the outlines of defects, for Outputs.Contours
    }

    // Says where an image lies: an array, which is pinned while it is used, or an address that the caller looks after.
    public sealed class Image
    {
        public Image(Array pixels, int widthPx, int heightPx, Pixel format, long strideBytes = 0)
            : this(IntPtr.Zero, widthPx, heightPx, format, strideBytes)
        {
            Pixels = pixels ?? throw new ArgumentNullException(nameof(pixels));
            if (heightPx > 0 && StrideBytes * (heightPx - 1) + RowBytes > Buffer.ByteLength(pixels))
                throw new ArgumentException("the array ends before the image's last pixel", nameof(pixels));
        }

        // strideBytes: from one row to the next; 0: rows without gaps.
        public Image(IntPtr address, int widthPx, int heightPx, Pixel format, long strideBytes = 0)
        {
            Address = address;
            WidthPx = widthPx;
            HeightPx = heightPx;
            Format = format;
            StrideBytes = strideBytes != 0 ? strideBytes : RowBytes;
        }

        public int WidthPx { get; }
        public int HeightPx { get; }
        public Pixel Format { get; }
        public long StrideBytes { get; }
        public Memory Memory { get; set; } // Cuda: Address is on the inspector's GPU
        public IntPtr CudaStream { get; set; }
        public int DeadlineMs { get; set; } // for InspectAsync alone: fail with Expired where its turn comes later; 0: none
        internal Array Pixels { get; }
        internal IntPtr Address { get; }

        private long RowBytes
        {
            get
            {
                int[] pixelBytes = { 0, 1, 2, 3, 3, 4, 4, 6, 6 };
                return (uint)Format < pixelBytes.Length ? (long)WidthPx * pixelBytes[(int)Format] : WidthPx;
            }
        }
    }

    [Flags]
    public enum Outputs
    {
        Score = 0,
        Map = 1,
        Mask = 2,
        Defects = 4,
        Contours = 8 // of an inspector that was opened with them; brings the defects along
    }

    public sealed class Result
    {
        public const int MaxDefects = 256;
        public const int MaxPoints = 65536;

        public double Score { get; internal set; }
        public double Threshold { get; internal set; }
        public bool IsDefect { get; internal set; }
        public int WidthPx { get; internal set; } // of the map and the mask: the image's
        public int HeightPx { get; internal set; }
        public float[] Map { get; internal set; } // row after row; null where it was not wanted, as are those below
        public byte[] Mask { get; internal set; }
        public Defect[] Defects { get; internal set; } // highest peak first, MaxDefects at most
        public int DefectCount { get; internal set; } // of all
        public Point[] Points { get; internal set; } // outlines: of a defect from FirstPoint on, MaxPoints at most together
        public int PointCount { get; internal set; } // of all outlines
        public double QueueMs { get; internal set; }
        public double TotalMs { get; internal set; }
    }

    // Holds an open bundle. Dispose closes it, after the calls in progress.
    public sealed class Inspector : IDisposable
    {
        private const Outputs Usual = Outputs.Map | Outputs.Defects;
        private static readonly Native.DoneCallback OnDoneDelegate = OnDone; // never collected, as long as jobs run

        private readonly InspectorHandle handle;

        public Inspector(string bundle, InspectorOptions options = null)
        {
            if (!Library.AbiFits)
                throw new NdpRtException(Status.Abi, "libndp_rt.so " + Library.Version + " does not fit NdpRt.cs");
            using (var lent = new LentOptions(options ?? new InspectorOptions()))
                Library.Check(Native.ndp_rt_inspector_open(Library.Utf8(bundle), ref lent.Options, out handle));
        }

        public Info Info
        {
            get
            {
                var info = new Info { StructSize = (uint)Marshal.SizeOf<Info>() };
                Library.Check(Native.ndp_rt_inspector_info(handle, ref info));
                return info;
            }
        }

        public Times Timings
        {
            get
            {
                var times = new Times { StructSize = (uint)Marshal.SizeOf<Times>() };
                Library.Check(Native.ndp_rt_timings(handle, ref times));
                return times;
            }
        }

        public double Threshold
        {
            get
            {
                Library.Check(Native.ndp_rt_inspector_get_threshold(handle, out double threshold));
                return threshold;
            }
            set { Library.Check(Native.ndp_rt_inspector_set_threshold(handle, value)); }
        }

        // One line: bundle, device, backend, precision, engine.
        public string Describe()
        {
            return Library.ReadText((byte[] buffer, UIntPtr capacity, out UIntPtr needed) =>
                Native.ndp_rt_inspector_describe(handle, buffer, capacity, out needed));
        }

        public void WarmUp(int count = 1)
        {
            Library.Check(Native.ndp_rt_inspector_warm_up(handle, count));
        }

        // Use another defect-free image as the reference from the next inspection on.
        public void SetReference(Image image)
        {
            using (var lent = new LentImage(image, Outputs.Score))
                Library.Check(Native.ndp_rt_inspector_set_reference(handle, ref lent.Image));
        }

        // Inspect one image, resized to the network's input.
        public Result Inspect(Image image, Outputs wanted = Usual)
        {
            using (var lent = new LentImage(image, wanted))
            {
                Library.CheckFilled(Native.ndp_rt_inspector_inspect(handle, ref lent.Image, ref lent.Result));
                return lent.TakeResult();
            }
        }

        // Inspect several, in the largest batches that there are engines for.
        public Result[] InspectBatch(IReadOnlyList<Image> images, Outputs wanted = Usual)
        {
            var lent = new List<LentImage>();
            try
            {
                foreach (Image image in images)
                    lent.Add(new LentImage(image, wanted));
                Native.Image[] sources = lent.ConvertAll(one => one.Image).ToArray();
                Native.Result[] results = lent.ConvertAll(one => one.Result).ToArray();
                Library.CheckFilled(
                    Native.ndp_rt_inspector_inspect_batch(handle, sources, (UIntPtr)sources.Length, results));
                for (int i = 0; i < results.Length; i++)
                    lent[i].Result = results[i];
                return lent.ConvertAll(one => one.TakeResult()).ToArray();
            }
            finally
            {
                lent.ForEach(one => one.Dispose());
            }
        }

        // Inspect a large image in tiles that overlap, without resizing.
        public Result InspectLarge(Image image, int overlapPx = 32, Outputs wanted = Usual)
        {
            using (var lent = new LentImage(image, wanted))
            {
                Library.CheckFilled(
                    Native.ndp_rt_inspector_inspect_large(handle, ref lent.Image, overlapPx, ref lent.Result));
                return lent.TakeResult();
            }
        }

        // Put an image in the queue and return at once; throws QueueFull, but not with NewestWins. The pixels must stay as they
        // are until the task has ended. The inspector stays open until then, unless it is disposed: the task then fails with
        // Cancelled. An image that is dropped or comes too late fails with Dropped or Expired; one whose token is cancelled
        // while it waits is a task that was cancelled.
        public Task<Result> InspectAsync(
            Image image, Outputs wanted = Usual, CancellationToken token = default(CancellationToken))
        {
            var job = new Job(this, new LentImage(image, wanted), token);
            int status = Native.ndp_rt_inspector_submit(
                handle, ref job.Lent.Image, job.Memory, OnDoneDelegate, GCHandle.ToIntPtr(job.Self), IntPtr.Zero);
            if (status == (int)Status.Ok)
            {
                if (token.IsCancellationRequested)
                    job.Cancel(); // the token's own call may have come before there was something to cancel
                return job.Source.Task;
            }
            NdpRtException error = Library.MakeError(status);
            job.Dispose();
            throw error;
        }

        // Cancel all images that wait: their tasks fail with Cancelled. What is being inspected goes on.
        public void Cancel()
        {
            Library.Check(Native.ndp_rt_inspector_cancel(handle, IntPtr.Zero));
        }

        public void Dispose()
        {
            handle.Dispose();
        }

        // Called in the inspector's own thread, from C: nothing may be thrown.
        private static void OnDone(IntPtr user, int status, IntPtr result)
        {
            var job = (Job)GCHandle.FromIntPtr(user).Target;
            try
            {
                if (status == (int)Status.Cancelled && job.Token.IsCancellationRequested)
                {
                    job.Source.TrySetCanceled(job.Token);
                    return;
                }
                Library.CheckFilled(status);
                job.Lent.Result = Marshal.PtrToStructure<Native.Result>(result);
                job.Source.SetResult(job.Lent.TakeResult());
            }
            catch (Exception error)
            {
                job.Source.SetException(error);
            }
            finally
            {
                job.Dispose();
            }
        }

        // What a submitted image needs until its result is there; nothing of it is collected before.
        private sealed class Job : IDisposable
        {
            internal readonly TaskCompletionSource<Result> Source =
                new TaskCompletionSource<Result>(TaskCreationOptions.RunContinuationsAsynchronously);
            internal readonly LentImage Lent;
            internal readonly IntPtr Memory = Marshal.AllocHGlobal(Marshal.SizeOf<Native.Result>());
            internal readonly GCHandle Self;
            internal readonly CancellationToken Token;
            private readonly Inspector inspector;
            private readonly CancellationTokenRegistration registration;
            private readonly object gate = new object();
            private bool isDisposed; // under `gate`

            internal Job(Inspector inspector, LentImage lent, CancellationToken token)
            {
                Token = token;
                this.inspector = inspector;
                Lent = lent;
                Self = GCHandle.Alloc(this);
                Marshal.StructureToPtr(lent.Result, Memory, false);
                registration = token.Register(Cancel);
            }

            // Nothing is left to cancel once the memory is free, which another job may have by then.
            internal void Cancel()
            {
                lock (gate)
                    if (!isDisposed && !inspector.handle.IsClosed)
                        Native.ndp_rt_inspector_cancel(inspector.handle, Memory);
            }

            public void Dispose()
            {
                lock (gate)
                    isDisposed = true;
                registration.Dispose();
                Lent.Dispose();
                Marshal.FreeHGlobal(Memory);
                Self.Free();
                GC.KeepAlive(inspector);
            }
        }
    }
}
