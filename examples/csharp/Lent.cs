// What the library is lent for a call: structs whose pointers lead to pinned arrays and unmanaged strings.
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace NdpRt
{
    // Arrays stay at their addresses until this is disposed.
    internal abstract class Pins : IDisposable
    {
        private readonly List<GCHandle> pins = new List<GCHandle>();

        public void Dispose()
        {
            pins.ForEach(pin => pin.Free());
            pins.Clear();
        }

        // The address of an array; null has none.
        protected IntPtr Pin(Array array)
        {
            if (array == null)
                return IntPtr.Zero;
            pins.Add(GCHandle.Alloc(array, GCHandleType.Pinned));
            return pins[pins.Count - 1].AddrOfPinnedObject();
        }
    }

    internal sealed class LentOptions : Pins
    {
        internal Native.OpenOptions Options;

        internal LentOptions(InspectorOptions from)
        {
            Options = new Native.OpenOptions
            {
                StructSize = (uint)Marshal.SizeOf<Native.OpenOptions>(),
                Flags = (uint)((from.Threshold.HasValue ? Open.Threshold : 0) | (from.Build ? 0 : Open.NoBuild)
                               | (from.Fallback ? Open.Fallback : 0) | (from.NewestWins ? Open.NewestWins : 0)
                               | (from.Contours ? Open.Contours : 0)),
                Device = Pin(Library.Utf8(from.Device)),
                Backend = Pin(Library.Utf8(from.Backend)),
                Precision = Pin(Library.Utf8(from.Precision)),
                Plan = Pin(Library.Utf8(from.Plan)),
                BatchSizes = Pin(from.BatchSizes),
                BatchSizeCount = (uint)(from.BatchSizes == null ? 0 : from.BatchSizes.Length),
                Threads = from.Threads,
                Threshold = from.Threshold ?? 0,
                MmPerPixel = from.MmPerPixel,
                QueueCapacity = (uint)from.QueueCapacity,
                WhiteLevel16bit = (uint)from.WhiteLevel16bit,
                RequireSignature = Pin(Library.Utf8(from.RequireSignature)),
                IgnoreMask = Pin(Library.Utf8(from.IgnoreMask)),
                SmallestAreaPx = from.SmallestAreaPx,
                SmallestAreaMm2 = from.SmallestAreaMm2
            };
        }
    }

    // An image, and the arrays of the result that it will have.
    internal sealed class LentImage : Pins
    {
        internal Native.Image Image;
        internal Native.Result Result;
        private readonly Result taken;

        internal LentImage(Image from, Outputs wanted)
        {
            long count = (long)from.WidthPx * from.HeightPx;
            if (from.WidthPx < 1 || from.HeightPx < 1 || count > int.MaxValue)
                count = 0; // the library will refuse it
            taken = new Result { WidthPx = from.WidthPx, HeightPx = from.HeightPx };
            if (wanted.HasFlag(Outputs.Map) && count > 0)
                taken.Map = new float[count];
            if (wanted.HasFlag(Outputs.Mask) && count > 0)
                taken.Mask = new byte[count];
            if (wanted.HasFlag(Outputs.Contours))
                taken.Points = new Point[NdpRt.Result.MaxPoints];
            if (wanted.HasFlag(Outputs.Defects) || wanted.HasFlag(Outputs.Contours))
                taken.Defects = new Defect[NdpRt.Result.MaxDefects];
            Image = new Native.Image
            {
                StructSize = (uint)Marshal.SizeOf<Native.Image>(),
                PixelFormat = (uint)from.Format,
                Pixels = from.Pixels == null ? from.Address : Pin(from.Pixels),
                WidthPx = from.WidthPx,
                HeightPx = from.HeightPx,
                StrideBytes = from.StrideBytes,
                Memory = (uint)from.Memory,
                DeadlineMs = (uint)from.DeadlineMs,
                CudaStream = from.CudaStream
            };
            Result = new Native.Result
            {
                StructSize = (uint)Marshal.SizeOf<Native.Result>(),
                DefectStructSize = (uint)Marshal.SizeOf<Defect>(),
                Map = Pin(taken.Map),
                MapStrideBytes = from.WidthPx * 4L,
                MapCapacityBytes = count * 4,
                Mask = Pin(taken.Mask),
                MaskStrideBytes = from.WidthPx,
                MaskCapacityBytes = count,
                Defects = Pin(taken.Defects),
                DefectCapacity = (uint)(taken.Defects == null ? 0 : taken.Defects.Length),
                Points = Pin(taken.Points),
                PointCapacity = (uint)(taken.Points == null ? 0 : taken.Points.Length)
            };
        }

        // What the library has written, as a Result.
        internal Result TakeResult()
        {
            taken.Score = Result.Score;
            taken.Threshold = Result.Threshold;
            taken.IsDefect = Result.IsDefect != 0;
            taken.DefectCount = (int)Result.DefectCount;
            taken.QueueMs = Result.QueueMs;
            taken.TotalMs = Result.TotalMs;
            if (taken.Defects != null)
            {
                var defects = new Defect[Math.Min(taken.DefectCount, taken.Defects.Length)];
                Array.Copy(taken.Defects, defects, defects.Length);
                taken.Defects = defects;
            }
            taken.PointCount = (int)Result.PointCount;
            if (taken.Points != null)
            {
                uint count = 0; // outlines follow each other
                foreach (Defect one in taken.Defects)
                    count = one.FirstPoint + one.PointCount;
                var points = new Point[count];
                Array.Copy(taken.Points, points, count);
                taken.Points = points;
            }
            return taken;
        }
    }
}
